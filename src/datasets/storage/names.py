"""Names of files: which are videos, and by what ids they go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

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


def folder_trouble(path: Path) -> str:
    """What is wrong with a path that is no folder."""
    return f"{path} is a file, not a folder" if path.exists() else f"folder {path} not found"


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


def lost_zeros(missing: Iterable[str], names: Iterable[str]) -> str | None:
    """A hint, where files are named as missing ids are, but with more zeros in front.

    Spreadsheets and tables of numbers make 1 of 0001.

    Args:
        missing: ids without a file.
        names: of the files that are there, as `VideoStorage.listed_names` gives them.
    """
    padded: dict[tuple[str, str], tuple[int, str]] = {}
    for name in names:
        folder, _, digits = without_video_extension(name).rpartition("/")
        if digits.startswith("0") and digits.isdecimal():
            found = len(digits), name
            padded.setdefault((folder, _without_zeros(digits)), found)
            padded.setdefault(("", _without_zeros(digits)), found)
    for video_id in missing:
        folder, _, digits = without_video_extension(video_id).rpartition("/")
        length, name = padded.get((folder, _without_zeros(digits)), (0, ""))
        if digits.isdecimal() and length > len(digits):
            return f"the folder has {name}; have the ids lost leading zeros?"
    return None


def _without_zeros(digits: str) -> str:
    return digits.lstrip("0") or "0"
