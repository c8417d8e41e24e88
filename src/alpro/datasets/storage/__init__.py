"""Videos and images by their ids, from a folder, an LMDB or tar shards; hints at missing ones."""

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
    may_be_video,
    split_extension,
    why_outside,
    without_video_extension,
)
from alpro.datasets.storage.folder import ImageFolder, VideoFolder
from alpro.datasets.storage.lmdb_videos import VideoLmdb, data_file
from alpro.datasets.storage.shards import VideoShards, shards_in
from alpro.errors import shortened

# Depth of the search for videos, and folders searched at each level, beside a tar file, which may
# be the archive that they came in, and beside images, which may be extracted from them.
_LEVELS, _FOLDERS = 2, 16
KIND_OF_FILE = {".lmdb": "lmdb", ".mdb": "lmdb", ".tar": "shards"}  # storages of one file


def open_videos(path: Path, *, extension: str = ".mp4") -> VideoStorage:
    """Open the videos at a path, whatever their storage.

    That is a folder of video files (first of those with ``extension``), of an LMDB, of tar shards,
    or of images, such as a folder of frames for each video; or the file of an LMDB or shard.

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
    """``folder``, ``lmdb``, ``shards`` or ``images``; ``folder`` without evidence."""
    # Files go by their extension.
    if os.path.isfile(path):
        return KIND_OF_FILE.get(split_extension(path.name)[1], "folder")
    if not os.path.isdir(path):
        return "folder"
    # Folders go by their content: first an LMDB's file, then videos in the folder itself, then tar
    # files or images unless there are videos below.
    if os.path.isfile(data_file(path)):
        return "lmdb"
    if _holds(VIDEO_EXTENSIONS, path, levels=0):
        return "folder"
    kind = "shards" if shards_in(path) else "images"
    is_known = kind == "shards" or _holds(IMAGE_EXTENSIONS, path, levels=_LEVELS)
    if not is_known or _holds(VIDEO_EXTENSIONS, path, levels=_LEVELS):
        return "folder"
    return "folder" if kind == "images" and _holds_previews(path) else kind


def _holds_previews(path: Path) -> bool:
    """Whether images in a folder bear the names of files that may be videos."""
    parts = [(name, *split_extension(name)) for name in os.listdir(path)]
    images = {stem for _, stem, extension in parts if extension in IMAGE_EXTENSIONS}
    others = (name for name, stem, _ in parts if may_be_video(name) and stem in images)
    return any(os.path.isfile(path / name) for name in others)


def _holds(extensions: Sequence[str], path: Path | str, *, levels: int) -> bool:
    """Whether a folder, or a few of its subfolders, hold files with one of these extensions."""
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
    except OSError:  # no permission
        return False
    nested = sorted(folders)[:_FOLDERS] if levels else []
    return any(_holds(extensions, folder, levels=levels - 1) for folder in nested)


_MAX_NAMES, _MAX_IDS = 100_000, 10_000  # compared; a rule takes 0.2 s for so many
# Extensions of files in place of videos, and the remedy.
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


def hint_of_missing(
    missing: Sequence[str], videos: VideoStorage, *, rows: Iterable[str] = ()
) -> str | None:
    """Suggest why ids have no video; ``rows`` are the ids of all rows of an annotation file."""
    # Ids that no storage can have come first, with their row.
    for video_id in missing:
        if reason := why_outside(video_id):
            row = next((n for n, each in enumerate(rows, start=1) if each == video_id), None)
            where = "" if row is None else f"row {row:,}: "
            shown = shortened(video_id)
            return f"{where}id '{shown}' {reason}; ids name videos within {videos.root}"
    names = videos.listed_names()
    return videos.unlisted() or near_names(missing, names) or _contents(names)


def _contents(names: Sequence[str]) -> str | None:
    """Describe the most frequent kind of files if no file is a video."""
    counts = Counter(split_extension(name)[1] for name in names)
    if not names:
        return "it is empty"
    if any(extension in counts for extension in VIDEO_EXTENSIONS):
        return None
    extension = max(counts, key=lambda each: (counts[each], each))
    for extensions, reason in _CONTENTS:
        if extension in extensions:
            example = next(name for name in names if split_extension(name)[1] == extension)
            return f"it holds {reason.format(name=shortened(example))}"
    return None


def near_names(missing: Sequence[str], names: Sequence[str]) -> str | None:
    """Suggest a rule by which the names of files, from the root, match most of the missing ids."""
    # Compare the names without extension.
    stems = [
        (without_video_extension(name), name)
        for name in islice(names, _MAX_NAMES)
        if split_extension(name)[1] not in OTHER_EXTENSIONS
    ]
    missing = missing[:_MAX_IDS]
    best: tuple[int, str, str, str] | None = None
    for question, simplified in _RULES:
        # Count the ids that match under this rule; the first of equally good rules wins.
        near = {simplified(stem): name for stem, name in reversed(stems)}
        wanted = ((video_id, simplified(without_video_extension(video_id))) for video_id in missing)
        pairs = [(video_id, near[key]) for video_id, key in wanted if key and key in near]
        if pairs and (best is None or len(pairs) > best[0]):
            best = len(pairs), question, *pairs[0]
            if len(pairs) == len(missing):
                break
    if best is None:
        return None
    # Show one match as an example.
    count, question, video_id, name = best
    share = "" if len(missing) == 1 else f" ({count:,} of {len(missing):,} would match so)"
    return f"the folder has {shortened(name)} for id {shortened(video_id)}; {question}{share}"


def _without_zeros(name: str) -> str:
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", name)


def _without_addition(name: str) -> str:
    """Remove additions of downloaders and cutters to a name."""
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
