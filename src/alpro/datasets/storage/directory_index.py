"""Index of the files of one folder by video id."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alpro.datasets.decoding.formats import described_content
from alpro.datasets.decoding.image_files import IMAGE_EXTENSIONS
from alpro.errors import raise_scarcity
from alpro.user_files import NO_FILE, why_unreadable

VIDEO_EXTENSIONS = (
    ".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".flv", ".ts", ".3gp", ".mpg", ".mpeg",
    ".wmv", ".asf", ".ogv", ".m2ts", ".mts", ".3g2", ".f4v", ".mxf", ".gif",
)  # fmt: skip
# Extensions of files beside videos that bear their names, but are none.
OTHER_EXTENSIONS = frozenset({
    *(".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".html", ".md", ".rst", ".pdf", ".log"),
    *(".yaml", ".yml", ".toml", ".ini", ".cfg", ".nfo", ".info", ".description", ".meta", ".url"),
    *(".srt", ".vtt", ".ass", ".ssa", ".sub", ".sbv", ".ttml", ".idx", ".lrc"),
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".svg", ".heic", ".avif", ".ico"),
    *(".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".wma", ".ac3", ".aiff"),
    *(".npy", ".npz", ".pt", ".pth", ".pkl", ".pickle", ".h5", ".hdf5", ".mat", ".parquet"),
    *(".db", ".sqlite", ".mdb", ".lmdb", ".index", ".bin", ".safetensors", ".feather", ".arrow"),
    *(".tar", ".gz", ".tgz", ".bz2", ".xz", ".zip", ".7z", ".rar", ".zst", ".lz4"),
    *(".py", ".sh", ".ipynb", ".js", ".c", ".h", ".exe", ".dll", ".so", ".ds_store"),
    *(".tmp", ".temp", ".part", ".partial", ".ytdl", ".crdownload", ".aria2", ".bak", ".lock"),
    *(".md5", ".sha1", ".sha256", ".torrent", ".lnk", ".swp", ".old", ".orig"),
})  # fmt: skip
# An absolute path, `..`, no name at the end, a zero character, a lone surrogate.
_OUTSIDE = re.compile(r"^[/\\]|(^|[/\\])\.\.([/\\]|$)|(^|/)\.?$|\0|[\ud800-\udc7f\udd00-\udfff]")


def folder_trouble(path: Path) -> str:
    """Describe a path that is no folder, or one that must not be listed or entered."""
    trouble = why_unreadable(path)
    if trouble is None:
        return f"{path} is a file, not a folder; it holds {described_content(path)}"
    if os.path.isdir(path):
        return f"folder {path} cannot be read: Permission denied"
    return f"folder {path} not found" if trouble == NO_FILE else f"{path} {trouble}"


def is_open_folder(path: Path) -> bool:
    """Return whether a path is a folder that may be listed and entered."""
    return os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK)


def why_outside(video_id: str) -> str | None:
    """Reason why an id names nothing within a folder, to follow it in a message; None if it may.

    Links in the folder are followed wherever they lead, as their author intends.
    """
    if _OUTSIDE.search(video_id) is None:
        return None
    if "\0" in video_id:
        return "holds a zero character"
    if video_id.startswith(("/", "\\")):
        return "is a complete path"
    if re.search(r"(^|[/\\])\.\.([/\\]|$)", video_id):
        return "leads out of the folder"
    if re.search(r"(^|/)\.?$", video_id):
        return "names no file"
    return "holds half a character"


def split_extension(name: str) -> tuple[str, str]:
    """Split ``x.y.MP4`` into ``x.y`` and ``.mp4``; names such as ``.mp4`` have no extension."""
    stem, _, extension = name.rpartition(".")
    if not stem or stem.endswith("/") or "/" in extension:
        return name, ""
    return stem, f".{extension.lower()}"


def without_video_extension(name: str) -> str:
    """Remove the extension of a name if it is a video's."""
    stem, extension = split_extension(name)
    return stem if extension in VIDEO_EXTENSIONS else name


def with_small_extension(name: str) -> str:
    """Lower the extension: ``C.MOV`` becomes ``C.mov``."""
    stem, dot, extension = name.rpartition(".")
    # The name itself if nothing changes, to share its memory.
    return name if extension == extension.lower() else stem + dot + extension.lower()


def is_hidden(name: str) -> bool:
    """Whether a file is hidden, and so no video: systems and unfinished copies leave such files."""
    return name.startswith(".")


def may_be_video(name: str) -> bool:
    """Whether a file whose extension is unknown may be a video."""
    return not is_hidden(name) and split_extension(name)[1] not in OTHER_EXTENSIONS


def tails(video_id: str) -> Iterator[str]:
    """Yield an id without its first folders: ``b/c`` and ``c`` of ``a/b/c``."""
    slash = video_id.find("/")
    while slash >= 0:
        yield video_id[slash + 1 :]
        slash = video_id.find("/", slash + 1)


_LAST_RANK = len(VIDEO_EXTENSIONS) + 2  # of files with an unknown extension


class Match(NamedTuple):
    """A file that an id may name; of several, the one with the lowest rank."""

    rank: int
    name: str

    @property
    def has_known_extension(self) -> bool:
        """Whether the extension is a video's."""
        return self.rank < _LAST_RANK


class DirectoryIndex:
    """A folder's files by their names without extension, and its subfolders."""

    def __init__(self, folder: str) -> None:
        self.folders: list[str] = []
        # Most stems have one file; a list for each would double the memory of 200,000 of them.
        self.files: dict[str, str | list[str]] = {}
        self.not_files: set[str] = set()  # broken links, as of git-annex, pipes, devices
        self.trouble: str | None = None  # reason why an existing folder cannot be listed
        # List the folder, in order of names.
        try:
            with os.scandir(folder) as entries:
                listed = sorted((each.name, is_folder(each), _is_file(each)) for each in entries)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return
        except OSError as error:  # no permission, deleted meanwhile, or too long a name
            raise_scarcity(error)
            self.trouble = error.strerror
            return
        if not os.access(folder, os.X_OK):  # names can be listed, but files not be opened
            self.trouble = os.strerror(errno.EACCES)
            return
        # Sort its entries into folders and files by stem.
        for name, holds_files, can_be_read in listed:
            if holds_files:
                self.folders.append(name)
                continue
            if not can_be_read:
                self.not_files.add(name)
            self._add(name)

    def _add(self, name: str) -> None:
        stem = split_extension(name)[0]
        others = self.files.get(stem)
        if others is None:
            self.files[stem] = name
        elif isinstance(others, str):
            self.files[stem] = [others, name]
        else:
            others.append(name)

    def names(self) -> Iterator[str]:
        """Yield the names of all files, broken links and the like included."""
        for names in self.files.values():
            yield from _as_list(names)

    def find(self, name: str, *, extension: str) -> Match | None:
        """The file that an id without its folder names.

        The dataset's own extension comes first, then one that the id has itself, then the common
        ones, and last an unknown one, if only one file has it.
        """
        own = self._files_of(split_extension(name)[0])
        longer = self._files_of(name)
        # Later names win: a.mp4 is sorted after a.MP4.
        by_small_name = {with_small_extension(each): each for each in (*own, *longer)}
        if by_small_name:
            for rank, candidate in enumerate(_candidates(name, extension=extension)):
                if candidate in by_small_name:
                    return Match(rank, by_small_name[candidate])
        unknown = [each for each in longer if may_be_video(each)]
        if name in own and may_be_video(name):
            unknown = [name]
        return Match(_LAST_RANK, unknown[0]) if len(unknown) == 1 else None

    def _files_of(self, stem: str) -> list[str]:
        names = _as_list(self.files.get(stem))
        return [name for name in names if name not in self.not_files]


def _candidates(name: str, *, extension: str) -> Iterator[str]:
    yield name + extension
    has_own = split_extension(name)[1] in (*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS)
    yield with_small_extension(name) if has_own else ""
    for common in VIDEO_EXTENSIONS:
        yield name + common


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; broken and circular links are none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_file(entry: os.DirEntry[str]) -> bool:
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()


def _as_list(names: str | list[str] | None) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else names
