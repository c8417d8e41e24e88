"""Videos in an LMDB: one memory-mapped file for all of them.

A damaged file would crash the process that reads it, since the library trusts its numbers. So the
library's own verifier, written in Python, checks a file before it is used. Its keys are then kept
beside it: the verifier takes 10 microseconds for each, and reads a page of each value, which takes
20 s on a fast disk for 200,000 videos that are not cached.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from alpro.datasets.decoding.base import VideoReadError
from alpro.datasets.storage.base import VideoStorage
from alpro.datasets.storage.directory_index import VIDEO_EXTENSIONS, without_video_extension
from alpro.datasets.storage.index_file import PackedIds, read_index, stamp_of, write_index
from alpro.errors import InputError
from alpro.installation import AbsentPackageError, import_optional
from alpro.user_files import NO_FILE, reason_of, why_unreadable

if TYPE_CHECKING:
    import lmdb

logger = logging.getLogger(__name__)

DATA_FILE = "data.mdb"
_MAP_BYTES = 1 << 40  # of addresses, not memory: room for additions while the file is in use
# Complaints of the verifier that do not concern reading: about free pages, and about surplus pages
# of values that were replaced by smaller ones.
_HARMLESS = re.compile(
    "^freeDB|in the freeDB|header mp_pages|overflow pages, record says|errors suppressed"
)
_NUM_COMPARED = 32  # kept keys that are looked up in the file
MAX_KEY_BYTES = 511  # in default builds of the library


def lmdb_module() -> ModuleType:
    """Import the library; InputError where it is not installed, or fails."""
    try:
        import_optional("lmdb.verify")
        return import_optional("lmdb")
    except AbsentPackageError as error:
        raise InputError(
            f"videos in an LMDB need the package lmdb, version 3 or later; {error}: "
            "`pip install lmdb`"
        ) from error


def lmdb_key(video_id: str) -> bytes:
    """The key of a video, as ClipBERT makes it: its id in UTF-8."""
    return video_id.encode("utf-8", "surrogateescape")


def data_file(path: Path) -> Path:
    """The data file of an LMDB, which may be given as its folder or as the file."""
    return path / DATA_FILE if os.path.isdir(path) else path


class VideoLmdb(VideoStorage):
    """An LMDB whose keys are video ids and whose values are files' bytes, as ClipBERT lays it out.

    Ids match keys with or without a video's extension.
    """

    def __init__(self, root: Path) -> None:
        data = data_file(root)
        if trouble := why_unreadable(data):
            if trouble != NO_FILE:
                raise InputError(f"videos: {data} {trouble}")
            raise InputError(f"videos: {root} is no LMDB: there is no {DATA_FILE}")
        lmdb_module()
        self.root = root
        self._shared: _Environment | None = None
        self._is_verified = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shared": None}

    @property
    def described(self) -> str:
        return f"the LMDB {self.root}"

    def fetch(self, video_id: str) -> bytes | None:
        import lmdb

        if not self._is_verified:
            self._verified_keys()
        environment = self._environment()
        try:
            with environment.begin() as transaction:
                values = (transaction.get(key) for key in _keys(video_id))
                return next((value for value in values if value is not None), None)
        except lmdb.Error as error:
            raise VideoReadError(f"{self.root}: {error}") from error

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        there = set(self._verified_keys())
        return [
            video_id
            for video_id in dict.fromkeys(video_ids)
            if not any(key in there for key in _keys(video_id))
        ]

    def video_ids(self) -> list[str]:
        return sorted(key.decode("utf-8", "surrogateescape") for key in self._verified_keys())

    def _verified_keys(self) -> PackedIds:
        """All keys, sorted; the file is verified unless it has not changed since the last time."""
        data = data_file(self.root)
        environment = self._environment()  # checks whether the file was cut short
        # Reuse the keys that are kept beside the file, or read and keep them.
        try:
            stamp = stamp_of([data])
            kept = read_index(self.root, stamp, PackedIds.DTYPES)
            if kept is not None:
                keys = PackedIds(kept[1])
                if keys.are_sorted() and _are_of(environment, keys):
                    self._is_verified = True
                    return keys
            arrays = PackedIds.pack(_read_keys(environment, data))
        except OSError as error:
            raise InputError(f"videos: {data} cannot be read: {reason_of(error)}") from error
        write_index(self.root, stamp, {}, arrays)
        self._is_verified = True
        return PackedIds(arrays)

    def _environment(self) -> lmdb.Environment:
        if self._shared is None:
            self._shared = _Environment.of(self.root)
        return self._shared.opened()


def _read_keys(environment: lmdb.Environment, data: Path) -> list[bytes]:
    """Verify a file, and read all of its keys, sorted."""
    import lmdb

    logger.info("scanning %s for videos", data)
    check_lmdb(data)
    try:
        with environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            # Without values, which would read all of their pages.
            keys = cursor.iternext_nodup(values=False)
            return sorted(map(bytes, islice(keys, environment.stat()["entries"])))
    except lmdb.Error as error:
        raise _damaged(data, str(error)) from error


def check_lmdb(data: Path) -> None:
    """Check a file with the library's verifier, before the library itself reads it.

    Raises:
        InputError: it is damaged.
        OSError: it cannot be read.
    """
    from lmdb.verify import VerifyError, verify

    try:
        troubles = [each for each in verify(str(data), subdir=False) if not _HARMLESS.search(each)]
    except VerifyError as error:
        troubles = [str(error)]
    if troubles:
        raise _damaged(data, troubles[0])


def _damaged(data: Path, trouble: str) -> InputError:
    return InputError(f"videos: {data} is damaged ({trouble}); copy it again, or write it again")


def _are_of(environment: lmdb.Environment, keys: PackedIds) -> bool:
    """Return whether kept keys belong to an LMDB, by a sample of them."""
    import lmdb

    try:
        with environment.begin() as transaction, transaction.cursor() as cursor:
            step = max(1, len(keys) // _NUM_COMPARED)
            return environment.stat()["entries"] >= len(keys) and all(
                cursor.set_key(keys[number]) for number in range(0, len(keys), step)
            )
    except lmdb.Error:  # an invalid key, for example
        return False


class _Environment:
    """An open LMDB of this process, shared by all storages of one file.

    The library opens a file only once per process.
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
        """The environment, opened by this process: one of its parent must not be used."""
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
    import lmdb

    # Open it for reading, without the lock file, which needs the right to write there.
    open_mapped = partial(
        lmdb.open,
        str(path),
        subdir=os.path.isdir(path),
        readonly=True,
        create=False,
        lock=False,
        # The library advises against it, but for small values: page by page, a megabyte that was
        # not cached took 20 ms instead of 4.
        readahead=True,
    )
    try:
        try:
            environment = open_mapped(map_size=_MAP_BYTES)
        except lmdb.MemoryError:  # `ulimit -v`
            environment = open_mapped()
    except lmdb.Error as error:
        raise InputError(f"videos: {path} cannot be read as an LMDB: {error}") from error
    # Reading beyond the end would crash the process without a message.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = data_file(path).stat().st_size
    if size < needed:
        environment.close()
        raise InputError(
            f"videos: {data_file(path)} was cut short: it has {size:,} bytes of {needed:,}; copy "
            "it again"
        )
    return environment


def _keys(video_id: str) -> Iterator[bytes]:
    """The keys that a video may have, likely ones first."""
    for name in _names(video_id):
        try:
            key = lmdb_key(name)
        except UnicodeEncodeError:  # a lone surrogate, which no name has
            continue
        if 0 < len(key) <= MAX_KEY_BYTES:
            yield key


def _names(video_id: str) -> Iterator[str]:
    # One by one: the first is nearly always there.
    yield video_id
    if (stem := without_video_extension(video_id)) != video_id:
        yield stem
    for extension in VIDEO_EXTENSIONS:
        yield video_id + extension
