"""Where a video id's file lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from src.errors import InputError

VIDEO_EXTENSIONS = (
    ".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".flv", ".ts", ".3gp", ".mpg", ".mpeg",
    ".wmv", ".asf", ".ogv", ".m2ts", ".mts", ".3g2", ".f4v", ".mxf", ".gif",
)  # fmt: skip


def folder_trouble(path: Path) -> str:
    """What is wrong with a path that is no folder."""
    return f"{path} is a file, not a folder" if path.exists() else f"folder {path} not found"


class VideoFolder:
    """A folder holding one file per video, named ``<video id><extension>``.

    A file with the dataset's own extension is preferred; where it is absent, any other common video
    extension will do. Extensions may be in capitals. An id that already carries one names its file
    itself.
    """

    def __init__(self, root: Path, *, extension: str = ".mp4") -> None:
        if not root.is_dir():
            raise InputError(
                f"videos: {folder_trouble(root)}; the dataset's `img` must name the folder that "
                f"holds its videos as <video id>{extension}"
            )
        self.root = root
        self.extension = extension
        self._listings: dict[PurePath, dict[str, str]] = {}
        """Folder -> its files' names by names whose extension is in small letters."""

    def find(self, video_id: str) -> Path | None:
        """The file of this video, or ``None`` where the folder has none."""
        path = self.root / (video_id + self.extension)
        if path.is_file():
            return path
        name = self._listed_name(video_id)
        if name is None:
            return None
        path = self.root / PurePath(video_id).parent / name
        return path if path.is_file() else None

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        """The ids without a file, once each, in order of first appearance."""
        return [name for name in dict.fromkeys(video_ids) if self._listed_name(name) is None]

    def listed_names(self) -> list[str]:
        """The files' names, from ``root``, in all folders that ids have been looked up in."""
        return [
            str(folder / name)
            for folder, listing in self._listings.items()
            for name in listing.values()
        ]

    def _listed_name(self, video_id: str) -> str | None:
        """The name of a video's file.

        A folder is listed once, which on network drives is much faster than asking per video.
        """
        folder = PurePath(video_id).parent
        if folder not in self._listings:
            self._listings[folder] = _files_in(self.root / folder)
        listing = self._listings[folder]
        found = (listing.get(name) for name in self._candidate_names(PurePath(video_id).name))
        return next((name for name in found if name is not None), None)

    def _candidate_names(self, name: str) -> Iterator[str]:
        yield name + self.extension
        if PurePath(name).suffix.lower() in VIDEO_EXTENSIONS:
            yield _with_small_extension(name)
        for extension in VIDEO_EXTENSIONS:
            yield name + extension


def lost_zeros(missing: Iterable[str], names: Iterable[str]) -> str | None:
    """A hint, where files are named as missing ids are, but with more zeros in front.

    Spreadsheets and tables of numbers make 1 of 0001.

    Args:
        missing: ids without a file.
        names: of the files that are there, as `VideoFolder.listed_names` gives them.
    """
    padded: dict[tuple[PurePath, str], tuple[int, str]] = {}
    for name in names:
        path = _without_extension(name)
        if path.name.startswith("0") and path.name.isdecimal():
            padded.setdefault((path.parent, _without_zeros(path.name)), (len(path.name), name))
    for video_id in missing:
        path = _without_extension(video_id)
        key = path.parent, _without_zeros(path.name)
        if path.name.isdecimal() and padded.get(key, (0, ""))[0] > len(path.name):
            return f"the folder has {padded[key][1]}; have the ids lost leading zeros?"
    return None


def _without_extension(name: str) -> PurePath:
    path = PurePath(name)
    return path.with_suffix("") if path.suffix.lower() in VIDEO_EXTENSIONS else path


def _without_zeros(digits: str) -> str:
    return digits.lstrip("0") or "0"


def _files_in(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    names = sorted(entry.name for entry in folder.iterdir())  # a.mp4 stands after a.MP4, and wins
    return {_with_small_extension(name): name for name in names}


def _with_small_extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return stem + dot + extension.lower()
