"""Videos in an LMDB: one file for all of them, which the system reads as if it were memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from src.datasets.decoding.contract import VideoReadError
from src.datasets.storage.lmdb_entries import read_entries
from src.datasets.storage.names import VIDEO_EXTENSIONS, without_video_extension
from src.errors import InputError
from src.optional_packages import AbsentPackageError, import_optional

if TYPE_CHECKING:
    import lmdb

DATA_FILE = "data.mdb"
_MAP_BYTES = 1 << 40
"""Of addresses, not of memory, so that what is added to the file while it is in use has some."""
MAX_KEY_BYTES = 511
"""What a key may have, as the library is built unless one builds it otherwise."""


def lmdb_module() -> ModuleType:
    """The library.

    Raises:
        InputError: it is not installed, or fails.
    """
    try:
        return import_optional("lmdb")
    except AbsentPackageError as error:
        raise InputError(
            f"videos in an LMDB need the package lmdb; {error}: `pip install lmdb`"
        ) from error


def lmdb_key(video_id: str) -> bytes:
    """The key of a video, as ClipBERT makes it: its id in UTF-8."""
    return video_id.encode("utf-8", "surrogateescape")


def data_file(path: Path) -> Path:
    """The file that holds an LMDB's data: in its folder, or itself."""
    return path / DATA_FILE if path.is_dir() else path


class VideoLmdb:
    """An LMDB whose keys are video ids and whose values are files' bytes, as ClipBERT lays it out.

    An id with a video's extension is found without it too, and one without it with it.
    """

    def __init__(self, root: Path) -> None:
        """Look whether it is there.

        Raises:
            InputError: it is not, or the library is not installed.
        """
        if not data_file(root).is_file():
            raise InputError(f"videos: {root} is no LMDB: there is no {DATA_FILE}")
        lmdb_module()
        self.root = root
        self._shared: _Environment | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shared": None}

    @property
    def described(self) -> str:
        """The LMDB, for messages."""
        return f"the LMDB {self.root}"

    def fetch(self, video_id: str) -> bytes | None:
        """A video's bytes, or ``None`` where there is none.

        Raises:
            VideoReadError: it is there, but cannot be read.
            InputError: the LMDB is damaged.
        """
        import lmdb

        environment = self._environment()
        try:
            with environment.begin() as transaction:
                values = (transaction.get(key) for key in _keys(video_id))
                return next((value for value in values if value is not None), None)
        except lmdb.Error as error:
            raise VideoReadError(f"{self.root}: {error}") from error

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        """The ids without a video, once each, in order of first appearance."""
        there = self._sizes()
        return [
            video_id
            for video_id in dict.fromkeys(video_ids)
            if not any(key in there for key in _keys(video_id))
        ]

    def sizes(self) -> dict[str, int]:
        """How many bytes each video has, without reading them."""
        sizes = self._sizes()
        return {key.decode("utf-8", "surrogateescape"): size for key, size in sizes.items()}

    def listed_names(self) -> list[str]:
        """The ids of all videos."""
        return self.video_ids()

    def video_ids(self) -> list[str]:
        """The ids of all videos, sorted."""
        return sorted(self.sizes())

    def _sizes(self) -> dict[bytes, int]:
        environment = self._environment()  # which looks whether the file is whole
        sizes = read_entries(data_file(self.root))
        if sizes is not None:
            return sizes
        with environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            return {bytes(key): len(value) for key, value in cursor}

    def _environment(self) -> lmdb.Environment:
        if self._shared is None:
            self._shared = _Environment.of(self.root)
        return self._shared.opened()


class _Environment:
    """An open LMDB of this process.

    The library opens a file once per process only, and storages do not know of each other: this is
    why it is kept at the class, as long as one of them is there.
    """

    _of_file: WeakValueDictionary[Path, _Environment] = WeakValueDictionary()
    _lock = threading.Lock()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = 0
        self._lmdb: lmdb.Environment | None = None

    @classmethod
    def of(cls, path: Path) -> _Environment:
        """That of a path; a folder and its file are one."""
        with cls._lock:
            return cls._of_file.setdefault(data_file(path).resolve(), cls(path))

    def opened(self) -> lmdb.Environment:
        """The environment, opened in this process: one that its parent opened is not used.

        Raises:
            InputError: the file is no LMDB, or was cut short.
        """
        if self._lmdb is not None and self._process == os.getpid():
            return self._lmdb
        with self._lock:
            if self._lmdb is None or self._process != os.getpid():
                if self._lmdb is not None:
                    self._lmdb.close()
                self._lmdb = _open(self._path)
                self._process = os.getpid()
            return self._lmdb


def _open(path: Path) -> lmdb.Environment:
    """Open for reading, without the lock file: others may have no right to write there.

    Raises:
        InputError: the file is no LMDB, or was cut short.
    """
    import lmdb

    open_mapped = partial(
        lmdb.open,
        str(path),
        subdir=path.is_dir(),
        readonly=True,
        create=False,
        lock=False,
        # The library's advice to switch it off is for small values: read a page at a time, a
        # megabyte that was not in memory took 20 ms instead of 4.
        readahead=True,
    )
    try:
        try:
            environment = open_mapped(map_size=_MAP_BYTES)
        except lmdb.MemoryError:  # `ulimit -v`
            environment = open_mapped()
    except lmdb.Error as error:
        raise InputError(f"videos: {path} cannot be read as an LMDB: {error}") from error
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    there = data_file(path).stat().st_size
    if there < needed:  # reading beyond the end would end the process, without a word
        environment.close()
        raise InputError(
            f"videos: {data_file(path)} was cut short: it has {there:,} bytes of {needed:,}; copy "
            "it again"
        )
    return environment


def _keys(video_id: str) -> Iterator[bytes]:
    """The keys that a video may have, likely ones first."""
    names = [video_id, without_video_extension(video_id)]
    names += [video_id + extension for extension in VIDEO_EXTENSIONS]
    for name in dict.fromkeys(names):
        try:
            key = lmdb_key(name)
        except UnicodeEncodeError:  # half a character, which no name has
            continue
        if 0 < len(key) <= MAX_KEY_BYTES:
            yield key
