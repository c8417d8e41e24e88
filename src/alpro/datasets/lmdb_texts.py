"""Texts in an LMDB, by the ids of what they describe."""

from __future__ import annotations

from pathlib import Path

from alpro.datasets.decoding.base import VideoReadError
from alpro.datasets.storage.lmdb_videos import VideoLmdb
from alpro.errors import InputError


class LmdbTexts:
    """An LMDB whose keys are ids and whose values are texts, both UTF-8."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._values = VideoLmdb(path)
        except InputError as error:
            raise _error_of_texts(error) from error

    def get(self, text_id: str) -> str | None:
        """The text of an id, stripped; None if there is none but white space.

        Raises:
            InputError: the LMDB is damaged, or the text is not UTF-8.
        """
        try:
            value = self._values.fetch(text_id)
            return None if value is None else value.decode().strip() or None
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: the text of {text_id!r} is not UTF-8") from error
        except (InputError, VideoReadError) as error:
            raise _error_of_texts(error) from error


def _error_of_texts(error: InputError | VideoReadError) -> InputError:
    return InputError(f"texts: {str(error).removeprefix('videos: ')}")
