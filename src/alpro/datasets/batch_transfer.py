"""Transfer of batches from loader workers to the trainer, through anonymous memory files.

PyTorch sends tensors from a thread of the worker: through files in /dev/shm, 64 MB in containers,
and sockets in TMPDIR, whose paths hold 107 characters. If the thread fails, the trainer hangs. Here
a batch is an anonymous memory file, whose descriptor goes through a socket that is older than the
worker; the thread that reads the batch reports all errors. 77 MB take a worker 35 ms, not 48.
"""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import socket
import struct
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from alpro.errors import InputError, RunError, ScarcityError, known_error
from alpro.isolation.process import memory_file

_ALIGNMENT = 64  # bytes, of what vector instructions read
_NUMBER = struct.Struct("<Q")
_PICKLE_PROTOCOL = 5  # the first that leaves buffers out of the pickle
_KINDS = (InputError, ScarcityError, RunError)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A known error as data: PyTorch would wrap one raised in a worker in a traceback."""

    kind: type[InputError | RunError]
    message: str

    @property
    def error(self) -> InputError | RunError:
        """The error, to be raised by the trainer."""
        return self.kind(self.message)


def or_refusal(work: Callable[[], Any]) -> Any:
    """Return what `work` returns, or a refusal where it raises a known error."""
    try:
        return work()
    except Exception as error:
        known = known_error(error)
        if known is None:
            raise
        return Refusal(next(kind for kind in _KINDS if isinstance(known, kind)), str(known))


@dataclass(frozen=True, slots=True)
class Parcel:
    """A batch on its way: what the loader's queue carries in its place."""

    receiver: int  # descriptor, in the trainer, of the socket that the memory comes through
    number: int
    sizes: tuple[int, ...]  # bytes of the pickled batch and of its buffers

    def open(self) -> Any:
        """Return the batch; its tensors share the memory that was sent."""
        # Map the memory file, whose descriptor is not needed any longer.
        with socket.socket(fileno=os.dup(self.receiver)) as receiver:
            descriptor = _receive(receiver, number=self.number)
        try:
            memory = memoryview(mmap.mmap(descriptor, 0))
        finally:
            os.close(descriptor)
        # Unpickle; the first block is the pickle, the others are its buffers.
        offsets = _offsets(self.sizes)
        blocks = [memory[at : at + size] for at, size in zip(offsets, self.sizes, strict=False)]
        return pickle.loads(blocks[0], buffers=blocks[1:])

    def pin_memory(self) -> Any:
        """Return the batch in page-locked memory, or a refusal (called by the loader's thread)."""
        return or_refusal(lambda: self.open().pin_memory())


class BatchChannel:
    """Channel from one worker to the trainer, which opens it before it starts the worker."""

    def __init__(self) -> None:
        receiver, self._sender = socket.socketpair()
        self._receiver = receiver.detach()
        self._num_sent = 0
        weakref.finalize(self, os.close, self._receiver)

    def close_sender(self) -> None:
        """Close the worker's end, in the trainer."""
        self._sender.close()

    def send(self, batch: Any) -> Parcel:
        """Send a batch from the worker, its tensors and arrays outside the pickle."""
        # Pickle the batch without its buffers.
        buffers: list[pickle.PickleBuffer] = []
        body = BytesIO()
        _Pickler(body, _PICKLE_PROTOCOL, buffer_callback=buffers.append).dump(batch)
        blocks = [body.getbuffer(), *(buffer.raw() for buffer in buffers)]
        # Write all to a memory file; the system writes at most 2 GB at a time.
        sizes = tuple(block.nbytes for block in blocks)
        *offsets, end = _offsets(sizes)
        with memory_file() as file:
            for block, offset in zip(blocks, offsets, strict=True):
                done = 0
                while done < block.nbytes:
                    done += os.pwrite(file.fileno(), block[done:], offset + done)
            file.truncate(end)
            # Send the descriptor.
            self._num_sent += 1
            socket.send_fds(self._sender, [_NUMBER.pack(self._num_sent)], [file.fileno()])
        return Parcel(self._receiver, self._num_sent, sizes)


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays, whose memory can stay outside the pickle."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented


def _offsets(sizes: Sequence[int]) -> list[int]:
    """Aligned offsets of blocks of these sizes in a file, then its size."""
    return [0, *accumulate(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)]


def _receive(receiver: socket.socket, *, number: int) -> int:
    while True:
        note, descriptors, *_ = socket.recv_fds(receiver, _NUMBER.size, 1, socket.MSG_DONTWAIT)
        is_wanted = _NUMBER.unpack(note) == (number,)
        if is_wanted and not descriptors:  # the system drops those that there is no room for
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if is_wanted:
            return descriptors[0]
        # Earlier parcels belong to an iteration that was abandoned.
        for descriptor in descriptors:
            os.close(descriptor)
