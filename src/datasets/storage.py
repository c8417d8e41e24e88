"""Where a video id's file lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from src.errors import InputError

VIDEO_EXTENSIONS = (
    ".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".flv", ".ts", ".3gp", ".mpg", ".mpeg",
)  # fmt: skip


def folder_trouble(path: Path) -> str:
    """What is wrong with a path that is no folder."""
    return f"{path} is a file, not a folder" if path.exists() else f"folder {path} not found"


class VideoFolder:
    """A folder holding one file per video, named ``<video id><extension>``.

    A file with the dataset's own extension is preferred; where it is absent, any other common video
    extension (lower or upper case) will do. An id that already carries one names its file itself.
    """

    def __init__(self, root: Path, *, extension: str = ".mp4") -> None:
        if not root.is_dir():
            raise InputError(
                f"videos: {folder_trouble(root)}; the dataset's `img` must name the folder that "
                f"holds its videos as <video id>{extension}"
            )
        self.root = root
        self.extension = extension

    def find(self, video_id: str) -> Path | None:
        """The file of this video, or ``None`` where the folder has none."""
        for name in self._candidate_names(video_id):
            path = self.root / name
            if path.is_file():
                return path
        return None

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        """The ids without a file, once each, in order of first appearance.

        Folders are listed once, which on network drives is much faster than asking per video.
        """
        listings: dict[PurePath, set[str]] = {}
        absent = []
        for video_id in dict.fromkeys(video_ids):
            folder = PurePath(video_id).parent
            if folder not in listings:
                listings[folder] = _names_in(self.root / folder)
            names = listings[folder]
            if not any(PurePath(c).name in names for c in self._candidate_names(video_id)):
                absent.append(video_id)
        return absent

    def _candidate_names(self, video_id: str) -> Iterator[str]:
        yield video_id + self.extension
        if PurePath(video_id).suffix.lower() in VIDEO_EXTENSIONS:
            yield video_id
        for extension in VIDEO_EXTENSIONS:
            yield video_id + extension
            yield video_id + extension.upper()


def _names_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
