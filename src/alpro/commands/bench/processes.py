"""Processes that divide the reading between them, and are timed."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Protocol

from alpro.datasets.decoding import Decoder, SandboxedDecoder
from alpro.errors import RunError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from multiprocessing.sharedctypes import Synchronized


class Reader(Protocol):
    """Reads things by position; can be sent to a process."""

    def read(self, position: int) -> None:
        """Read one thing and forget it."""
        ...

    def close(self) -> None:
        """End what was started for it."""
        ...


def end_decoder(decoder: Decoder) -> None:
    """End the process that a decoder reads in, if it has one of its own."""
    if isinstance(decoder, SandboxedDecoder):
        decoder.close()


class ReadingProcesses:
    """Processes that read clips, sharing the work out as they go."""

    def __init__(self, processes: Sequence[SpawnProcess], channels: Sequence[Connection]) -> None:
        self.processes = processes
        self.channels = channels

    def time(self, reader: Reader, positions: Sequence[int], *, num_processes: int) -> float:
        """The seconds that some of the processes take together for the clips at these positions.

        Raises:
            RunError: if one of them ends.
        """
        channels = self.channels[:num_processes]
        try:
            for channel in channels:
                channel.send((reader, positions))
            for channel in channels:
                channel.recv()  # ready
            # The clock runs from the common start to the last process.
            start = time.perf_counter()
            for channel in channels:
                channel.send("go")
            for channel in channels:
                channel.recv()  # done
            return time.perf_counter() - start
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise RunError("a process that read videos has ended") from error


@contextmanager
def started_processes(count: int) -> Iterator[ReadingProcesses]:
    """Start processes, and end them after use."""
    context = multiprocessing.get_context("spawn")
    turn = context.Value("q", 0)
    processes: list[SpawnProcess] = []
    channels: list[Connection] = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, turn))
            process.start()
            theirs.close()  # else the end of the process would not be noticed
            processes.append(process)
            channels.append(ours)
        yield ReadingProcesses(processes, channels)
    finally:
        for channel in channels:
            channel.close()  # ends the process
        for process in processes:
            process.join()


def _serve(channel: Connection, turn: Synchronized[int]) -> None:
    """Read the clips of each request until the channel is closed."""
    while True:
        try:
            reader, positions = channel.recv()
        except EOFError:
            return
        reader.read(positions[0])  # imports the library, starts processes
        with turn:
            turn.value = 0
        # Warm-up is done; all processes start together.
        channel.send("ready")
        channel.recv()
        while True:
            with turn:
                number = turn.value
                turn.value += 1
            if number >= len(positions):
                break
            reader.read(positions[number])
        channel.send("done")
        reader.close()
