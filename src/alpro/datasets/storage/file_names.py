"""Names of files: which are videos, and by what ids they go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from alpro.datasets.decoding.formats import described_content
from alpro.user_files import NO_FILE, why_unreadable

VIDEO_EXTENSIONS = (
    ".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".flv", ".ts", ".3gp", ".mpg", ".mpeg",
    ".wmv", ".asf", ".ogv", ".m2ts", ".mts", ".3g2", ".f4v", ".mxf", ".gif",
)  # fmt: skip
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
"""Of files that lie beside videos and bear their names, but are none."""


_OUTSIDE = re.compile(r"^[/\\]|(^|[/\\])\.\.([/\\]|$)|(^|/)\.?$|\0|[\ud800-\udc7f\udd00-\udfff]")
"""A complete path, `..`, no name at the end, a zero character, half a character."""


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
    """Reason why an id names nothing within a folder, in words that follow it; None if it may.

    Links that lie in the folder are followed, wherever they lead: who has put them there wants so.
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
    """``x.y.MP4`` into ``x.y`` and ``.mp4``; a name has no extension if nothing is before it."""
    stem, _, extension = name.rpartition(".")
    if not stem or stem.endswith("/") or "/" in extension:
        return name, ""
    return stem, f".{extension.lower()}"


def without_video_extension(name: str) -> str:
    """A name without its extension, if that is a video's."""
    stem, extension = split_extension(name)
    return stem if extension in VIDEO_EXTENSIONS else name


def with_small_extension(name: str) -> str:
    """``C.MOV`` as ``C.mov``; the name itself where it is the same."""
    stem, dot, extension = name.rpartition(".")
    small = extension.lower()
    return name if small == extension else stem + dot + small


def is_hidden(name: str) -> bool:
    """Hidden files are no videos: systems and unfinished copies leave them."""
    return name.startswith(".")


def may_be_video(name: str) -> bool:
    """Whether a file whose extension is unknown may be a video."""
    return not is_hidden(name) and split_extension(name)[1] not in OTHER_EXTENSIONS


def tails(video_id: str) -> Iterator[str]:
    """An id without its first folder, its first two, and so on: ``b/c`` and ``c`` of ``a/b/c``."""
    slash = video_id.find("/")
    while slash >= 0:
        yield video_id[slash + 1 :]
        slash = video_id.find("/", slash + 1)
