"""Server loop of an isolated process, and the memory that it shares with its owner.

Each message is written to shared memory, and a note of its length goes through a socket. Large
buffers, such as frames, are copied twice but never pickled. The process imports only what the
functions that it calls need.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable
from typing import IO, Any

from alpro.errors import is_out_of_memory, lacks_threads
from alpro.launchers import GROUP_SIGNALS

NOTE = struct.Struct("<Q")  # sent through the socket: the size of the message in bytes
RESULT, ERROR, OUT_OF_MEMORY = "result", "error", "out of memory"  # kinds of answers
_FIRST_CAPACITY = 4 << 20  # initial bytes of shared memory; unused pages take no memory
_KEPT_CAPACITY = 64 << 20  # bytes of a message up to which its memory is kept for the next one
_PICKLE_PROTOCOL = 5  # the first that leaves buffers out of the pickle
_COUNT = struct.Struct("<Q")
_BLOCK = struct.Struct("<Q?")  # length, and whether it must not be written to
_PR_SET_PDEATHSIG = 1  # prctl(2): the signal to get when the parent ends
_DATA_PAGES_FIELD = 5  # of /proc/self/statm: what RLIMIT_DATA counts


class SharedMemory:
    """Memory file that two processes write messages to in turn."""

    def __init__(self, file: IO[bytes], *, is_new: bool) -> None:
        self._file = file
        if is_new:
            file.truncate(_FIRST_CAPACITY)
        self._memory = mmap.mmap(file.fileno(), 0)

    def put(self, message: tuple[Any, ...]) -> bytes:
        """Write a message, and return its note.

        Arrays, and bytes that are the message's own elements, are copied and not pickled.
        """
        # Pickle the message without its large buffers.
        buffers: list[pickle.PickleBuffer] = []
        elements = [pickle.PickleBuffer(e) if type(e) is bytes else e for e in message]
        body = pickle.dumps(elements, _PICKLE_PROTOCOL, buffer_callback=buffers.append)
        blocks = [memoryview(body), *(buffer.raw() for buffer in buffers)]

        # Layout: number of blocks, their sizes, then the blocks, the pickle first.
        head = _COUNT.pack(len(blocks))
        head += b"".join(_BLOCK.pack(block.nbytes, block.readonly) for block in blocks)
        length = len(head) + sum(block.nbytes for block in blocks)
        if length > len(self._memory):
            self._file.truncate(2 * length)
            self._map_again()
        begin = 0
        for block in (memoryview(head), *blocks):
            self._memory[begin : begin + block.nbytes] = block
            begin += block.nbytes
        return NOTE.pack(length)

    def get(self, note: bytes) -> list[Any]:
        """Read the message of a note, as a copy."""
        (length,) = NOTE.unpack(note)
        if length > len(self._memory):
            self._map_again()
        (count,) = _COUNT.unpack_from(self._memory)
        begin = _COUNT.size + count * _BLOCK.size
        blocks: list[bytes | bytearray] = []
        # Copy the blocks. Views are released at once: memory with views, even those of a traceback,
        # cannot be closed.
        with memoryview(self._memory) as view:
            for size, is_read_only in _BLOCK.iter_unpack(self._memory[_COUNT.size : begin]):
                with view[begin : begin + size] as block:
                    blocks.append(bytes(block) if is_read_only else bytearray(block))
                begin += size
        # Return the memory of a large message to the system.
        if length > _KEPT_CAPACITY and sys.platform == "linux":
            self._memory.madvise(mmap.MADV_REMOVE)

        # Put the pickle together with its buffers.
        body, *buffers = blocks
        message: list[Any] = pickle.loads(body, buffers=buffers)
        return message

    def close(self) -> None:
        """Close the memory in this process."""
        self._file.close()
        self._memory.close()

    def _map_again(self) -> None:
        self._memory.close()
        self._memory = mmap.mmap(self._file.fileno(), 0)


def serve(channel: int, file: int, owner: int, megabytes: int) -> None:
    """Answer calls until there are no more.

    Args:
        channel: descriptor of the socket for notes of calls and answers.
        file: descriptor of the shared memory.
        owner: id of the calling process.
        megabytes: of memory that all calls together may take, above that of the process after the
            first one, which has no limit, and above their messages; 0 for any number.
    """
    # Detach from the process group, and end with the owner.
    end_with_parent()
    if os.getppid() != owner:  # it has ended before
        os._exit(0)
    _ignore_group_signals()
    memory = SharedMemory(os.fdopen(file, "r+b", buffering=0), is_new=False)
    limit: int | None = None
    while note := os.read(channel, NOTE.size):
        note = _serve_once(memory, note, limit=limit or 0)
        if limit is None:
            is_limited = megabytes and sys.platform == "linux"
            limit = _data_bytes() + (megabytes << 20) if is_limited else 0
        os.write(channel, note)


def _serve_once(memory: SharedMemory, note: bytes, *, limit: int) -> bytes:
    """Answer the call of a note, and return the note of the answer; keep no reference to it."""
    try:
        function, *arguments = memory.get(note)
    except Exception as error:  # noqa: BLE001  # whatever an import may raise
        answer = _as_answer(error)
    else:
        (num_bytes,) = NOTE.unpack(note)  # a video's may be among them: a path would have none
        answer = _answer(function, arguments, limit=limit + num_bytes if limit else 0)
    try:
        return memory.put(answer)
    except Exception as error:  # noqa: BLE001  # whatever pickling may raise
        return memory.put(_as_answer(error))


def begin(prepare: Callable[[], object] | None, _function: Callable[..., object]) -> None:
    """The first call of a process; both functions' modules were imported to get here."""
    if prepare is not None:
        prepare()


def end_with_parent() -> None:
    """Have the system kill this process as soon as its parent ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _ignore_group_signals() -> None:
    """Ignore signals to the whole group, which the owner handles; leave no core dumps."""
    import resource

    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def _answer(function: Callable[..., Any], arguments: list[Any], *, limit: int) -> tuple[str, Any]:
    import resource

    # Limit the memory for this call only.
    before = resource.getrlimit(resource.RLIMIT_DATA)
    _, most = before
    if limit:
        lower = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (lower, most))
    try:
        return RESULT, function(*arguments)
    except Exception as error:  # noqa: BLE001  # the owner raises it
        if limit:
            resource.setrlimit(resource.RLIMIT_DATA, before)  # the report takes memory, too
        return (OUT_OF_MEMORY, None) if _is_out_of_memory(error) else _as_answer(error)
    finally:
        if limit:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether a lack of memory is this error or a cause of it."""
    while error is not None:
        # A thread's stack is memory, too; here there is room for any number of threads.
        if is_out_of_memory(error) or lacks_threads(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _as_answer(error: Exception) -> tuple[str, Any]:
    """Make an answer of an error, with its traceback as a note; it can always be pickled."""
    import traceback

    text = "".join(traceback.format_exception(error))
    error.add_note(f"raised in an isolated process:\n{text}")
    try:
        pickle.loads(pickle.dumps(error, _PICKLE_PROTOCOL))
    except Exception:  # noqa: BLE001  # whatever pickling may raise
        return ERROR, RuntimeError(text)
    return ERROR, error


def _data_bytes() -> int:
    """Memory of this process as RLIMIT_DATA counts it."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[_DATA_PAGES_FIELD]) * mmap.PAGESIZE
