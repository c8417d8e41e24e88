"""Texts in an LMDB, by the ids of what they describe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alpro.datasets.decoding.base import VideoReadError
from alpro.datasets.storage.lmdb_videos import VideoLmdb
from alpro.errors import InputError


class LmdbTexts:
    """An LMDB whose keys are ids and whose values are texts, both UTF-8."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors_of_texts():
            self._values = VideoLmdb(path)

    def get(self, text_id: str) -> str | None:
        """The text of an id, stripped; None if there is none but white space.

        Raises:
            InputError: the LMDB is damaged, or the text is not UTF-8.
        """
        with self._errors_of_texts():
            value = self._values.fetch(text_id)
        try:
            return (value or b"").decode().strip() or None
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: the text of {text_id!r} is not UTF-8") from error

    @contextmanager
    def _errors_of_texts(self) -> Iterator[None]:
        try:
            yield
        except (InputError, VideoReadError) as error:
            raise InputError(f"texts: {str(error).removeprefix('videos: ')}") from error
