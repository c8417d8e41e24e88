"""Which kind of storage lies at a path."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

from alpro.datasets.decoding.image_files import IMAGE_EXTENSIONS
from alpro.datasets.storage.base import VideoStorage
from alpro.datasets.storage.directory_index import (
    OTHER_EXTENSIONS,
    VIDEO_EXTENSIONS,
    is_folder,
    is_hidden,
    split_extension,
    why_outside,
    without_video_extension,
)
from alpro.datasets.storage.folder import VideoFolder
from alpro.datasets.storage.image_folder import ImageFolder
from alpro.datasets.storage.lmdb_videos import VideoLmdb, data_file
from alpro.datasets.storage.shard_index import shards_in
from alpro.datasets.storage.shards import VideoShards
from alpro.errors import shortened

_LEVELS, _FOLDERS = 2, 16
"""How deep, and into how many folders of each, is looked for videos beside a tar file, which may be
the archive that they came in, and beside images, which may be of them."""
KIND_OF_FILE = {".lmdb": "lmdb", ".mdb": "lmdb", ".tar": "shards"}
"""Kinds of storage that may be one file, by its extension."""


def open_videos(path: Path, *, extension: str = ".mp4") -> VideoStorage:
    """The videos at a path, whatever they are stored in.

    Args:
        path: a folder of video files, of an LMDB, of tar shards, or of images (frames in a folder
            for each video, say); or the one file of an LMDB or shard.
        extension: of the files in a folder, that is looked for first.

    Raises:
        InputError: there is nothing of this kind.
    """
    kind = storage_kind(path)
    if kind == "lmdb":
        return VideoLmdb(path)
    if kind == "images":
        return ImageFolder(path)
    return VideoShards(path) if kind == "shards" else VideoFolder(path, extension=extension)


def storage_kind(path: Path) -> str:
    """``folder``, ``lmdb``, ``shards`` or ``images``; where nothing tells, ``folder``."""
    if os.path.isfile(path):
        return KIND_OF_FILE.get(split_extension(path.name)[1], "folder")
    if not os.path.isdir(path):
        return "folder"
    if os.path.isfile(data_file(path)):
        return "lmdb"
    if _holds(VIDEO_EXTENSIONS, path, levels=0):
        return "folder"
    kind = "shards" if shards_in(path) else "images"
    if kind == "images" and not _holds(IMAGE_EXTENSIONS, path, levels=_LEVELS):
        return "folder"
    return "folder" if _holds(VIDEO_EXTENSIONS, path, levels=_LEVELS) else kind


def _holds(extensions: Sequence[str], path: Path | str, *, levels: int) -> bool:
    """Whether a folder or a few of its subfolders hold files with one of these extensions."""
    folders = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if is_folder(entry):
                    folders.append(entry.path)
                elif split_extension(entry.name)[1] in extensions:
                    return True
    except OSError:  # it must not be read
        return False
    if levels == 0:
        return False
    return any(_holds(extensions, each, levels=levels - 1) for each in sorted(folders)[:_FOLDERS])


_MAX_NAMES, _MAX_IDS = 100_000, 10_000  # that are compared; a rule takes 0.2 s for so many

_CONTENTS = (
    (
        (".jpg", ".jpeg", ".png", ".bmp", ".webp"),
        "images, such as {name}: name the folder that holds a folder of frames for each video, or "
        "that of the videos",
    ),
    (
        (".gz", ".tgz", ".bz2", ".xz", ".zst", ".lz4"),
        "compressed files, such as {name}: unpack them; tar shards are read as plain .tar files",
    ),
    ((".zip", ".rar", ".7z", ".tar"), "archives, such as {name}: unpack them into a folder"),
    (
        (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".wma"),
        "sound, such as {name}: name the folder of the videos",
    ),
    (
        (".npy", ".npz", ".pt", ".pth", ".pkl", ".pickle", ".h5", ".hdf5", ".mat"),
        "arrays, such as {name}: extracted features are not read, name the folder of the videos",
    ),
    (
        (".part", ".ytdl", ".crdownload", ".aria2", ".tmp"),
        "unfinished downloads, such as {name}: finish them",
    ),
    (
        (".txt", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".srt", ".vtt"),
        "texts, such as {name}: name the folder of the videos",
    ),
)
"""Extensions of what lies in place of videos, and what to do about it."""


def hint_of_missing(
    missing: Sequence[str], videos: VideoStorage, *, rows: Iterable[str] = ()
) -> str | None:
    """A sentence on why ids have no video, where there is something to say.

    Args:
        missing: ids without a video, as `VideoStorage.missing` returns them.
        videos: what they were looked for in.
        rows: the ids of all rows of an annotation file.
    """
    for video_id in missing:
        if reason := why_outside(video_id):
            row = next((n for n, one in enumerate(rows, start=1) if one == video_id), None)
            where = "" if row is None else f"row {row:,}: "
            shown = shortened(video_id)
            return f"{where}id '{shown}' {reason}; ids name videos within {videos.root}"
    names = videos.listed_names()
    return videos.unlisted() or near_names(missing, names) or _contents(names)


def _contents(names: Sequence[str]) -> str | None:
    """Describe the most frequent kind of files, where no file is a video."""
    counts = Counter(split_extension(name)[1] for name in names)
    if not names:
        return "it is empty"
    if any(extension in counts for extension in VIDEO_EXTENSIONS):
        return None
    extension = max(counts, key=lambda one: (counts[one], one))
    for extensions, reason in _CONTENTS:
        if extension in extensions:
            example = next(name for name in names if split_extension(name)[1] == extension)
            return f"it holds {reason.format(name=shortened(example))}"
    return None


def near_names(missing: Sequence[str], names: Sequence[str]) -> str | None:
    """A hint where files are named nearly as missing ids are, by one rule for most of them.

    Args:
        missing: ids without a video.
        names: of the files that are there, from the root.
    """
    stems = [
        (without_video_extension(name), name)
        for name in islice(names, _MAX_NAMES)
        if split_extension(name)[1] not in OTHER_EXTENSIONS
    ]
    missing = missing[:_MAX_IDS]
    best: tuple[int, str, str, str] | None = None
    for question, simplified in _RULES:
        near = {simplified(stem): name for stem, name in reversed(stems)}
        wanted = ((video_id, simplified(without_video_extension(video_id))) for video_id in missing)
        pairs = [(video_id, near[key]) for video_id, key in wanted if key and key in near]
        if pairs and (best is None or len(pairs) > best[0]):
            best = len(pairs), question, *pairs[0]
            if len(pairs) == len(missing):
                break
    if best is None:
        return None
    count, question, video_id, name = best
    share = "" if len(missing) == 1 else f" ({count:,} of {len(missing):,} would match so)"
    return f"the folder has {shortened(name)} for id {shortened(video_id)}; {question}{share}"


def _without_zeros(name: str) -> str:
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", name)


def _without_addition(name: str) -> str:
    """A name without what downloaders and cutters put around it."""
    if bracketed := re.search(r"\[([\w-]{6,})\]$", name):
        return bracketed[1]
    name = re.sub(r"\.(f\d+(-\w+)?|temp|part)$|(_\d+(\.\d+)?){2}$|[-_. ]?\d{3,4}p$", "", name)
    return re.sub(r"^(v_|video_?|yt_)(?=.)", "", name, flags=re.IGNORECASE)


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def _spelling(name: str) -> str:
    name = unicodedata.normalize("NFKC", unquote(name)).casefold()
    return re.sub(r"[\s_.+-]+", "_", name).strip("_")


_RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("is that a link to nowhere, a pipe or a device?", str),
    ("have the ids lost leading zeros?", _without_zeros),
    ("do capitals differ?", str.casefold),
    (
        "are accents written otherwise (Unicode NFC, NFD)?",
        lambda n: unicodedata.normalize("NFC", n),
    ),
    ("do separators or spaces differ?", lambda name: re.sub(r"[\s_.+-]+", "_", name).strip("_")),
    ("do the folders differ?", _last_part),
    ("has one of them a prefix or a suffix too many?", _without_addition),
    ("are they spelt differently?", _spelling),
    (
        "are they spelt differently, with a prefix or suffix too many?",
        lambda name: _without_zeros(_spelling(_without_addition(_last_part(name)))),
    ),
)
"""Possible reasons, each with the form in which ids and names are compared; simple rules first."""
