"""Functions and a decoder that misbehave, for isolated processes: imports nothing heavy."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from alpro.datasets.decoding import FrameSelector, Video, VideoReadError
from alpro.datasets.transforms.preprocessing import PixelPreprocessing

_FAR_TOO_MUCH = 1 << 30
"""Bytes at which `grow` gives up on being stopped."""
_calls: list[int] = []
_kept: list[np.ndarray] = []


class Unreadable:
    """A result that does what it is made with where it is read."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.frames = np.ones(1 << 20, np.uint8)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return _act, (self.act, self.frames)


def _act(act: Callable[[], None], _frames: np.ndarray) -> None:
    act()


class UnsendableError(Exception):
    """An error that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def twice(value: object) -> list[object]:
    return [value, value]


def loaded_modules() -> set[str]:
    return set(sys.modules)


def open_files() -> list[str]:
    """What the process has open, as Linux names it."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed them
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(names)


def read_error(text: str) -> None:
    raise VideoReadError(text)


def unsendable_error() -> None:
    raise UnsendableError("no way")


def unsendable_result() -> threading.Lock:
    return threading.Lock()


def hang(*, chatty: bool = False) -> None:
    while True:
        if chatty:
            os.write(2, b"still here\n")
        else:
            time.sleep(3600)


def prepare_largely() -> None:
    """Take 64 megabytes."""
    _kept.append(np.ones(1 << 26, np.uint8))


def prepare_slowly(done: Path) -> None:
    """Take half a second, and note the end of it."""
    time.sleep(0.5)
    done.touch()


def is_prepared() -> bool:
    return bool(_kept)


def chatter() -> None:
    hang(chatty=True)


def grow() -> int:
    parts: list[np.ndarray] = []
    while len(parts) << 24 < _FAR_TOO_MUCH:
        parts.append(np.ones(1 << 24, np.uint8))
    return len(parts)


def grow_in_disguise() -> int:
    """As decoders do that turn all their library's errors into one of their own."""
    try:
        return grow()
    except MemoryError as error:
        raise VideoReadError("library: something is wrong") from error


def grow_by(video: bytes, num_bytes: int) -> int:
    """Take memory beside a video's bytes."""
    return len(video) + len(np.ones(num_bytes, np.uint8))


def lack_memory(how: str) -> None:
    """Fail as what is no MemoryError does for want of memory."""
    match how:
        case "reading":
            raise OSError(errno.ENOMEM, "no room")
        case "library":
            raise ImportError("libodd.so.1: failed to map segment from shared object")
        case "symbols":
            raise OSError("libodd.so.1: cannot allocate memory for symbols")
        case "thread":
            raise RuntimeError("can't start new thread")


def interrupt() -> None:
    raise KeyboardInterrupt


def divide_by_zero() -> None:
    raise ZeroDivisionError


def read_as(act: Callable[[], None]) -> Unreadable:
    return Unreadable(act)


def be_killed(times: Path, most: int) -> int:
    """Be killed the first times; each is noted in a file."""
    with times.open("a") as file:
        file.write("x")
    num_calls = len(times.read_text())
    if num_calls <= most:
        os.kill(os.getpid(), signal.SIGKILL)
    return num_calls


def abort() -> None:
    os.write(2, b"what(): of no use\n\n")
    os.abort()


def abort_unless_first() -> int:
    """What breaks only where others were called before."""
    _calls.append(1)
    if len(_calls) > 1:
        os.abort()
    return os.getpid()


def leave(code: int) -> None:
    sys.exit(code)


def interrupt_owner() -> None:
    os.kill(os.getppid(), signal.SIGINT)
    hang()


def print_much() -> None:
    for _ in range(100):
        os.write(1, b"o" * 9999 + b"\n")
        os.write(2, b"e" * 9999 + b"\n")


class MisbehavingDecoder:
    """Reads a text file: a number of frames, or how to misbehave; frame ``i`` is filled with ``i``.

    Each reading is noted beside the file.
    """

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        assert isinstance(video, Path)
        with video.with_suffix(".readings").open("a") as file:
            file.write("read\n")
        text = video.read_text()
        match text:
            case "hang":
                hang()
            case "grow":
                grow()
            case "abort":
                abort()
        indices = select(int(text)).astype(np.uint8)
        size = preprocessing.size
        frames = np.broadcast_to(indices[:, None, None, None], (len(indices), 3, size, size))
        return frames.copy()


class LoadingDecoder(MisbehavingDecoder):
    """Reads only where it was loaded."""

    def load(self) -> None:
        prepare_largely()

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        assert is_prepared()
        return super().read(video, select, preprocessing=preprocessing)


def num_readings(video: Path) -> int:
    return len(video.with_suffix(".readings").read_text().splitlines())
