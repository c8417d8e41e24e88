"""Several ranks in one process: threads that wait for each other where ranks exchange something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

from alpro.distributed.engine import Engine, SingleProcess
from tests.factories import CPU

T = TypeVar("T")
PATIENCE = 60  # seconds after which a rank that does not come is given up


class RankInThread(SingleProcess):
    """One of ``size`` ranks that share a board."""

    def __init__(self, rank: int, *, board: list[Any], barrier: Barrier) -> None:
        super().__init__(CPU, scale_loss=False)
        self.rank, self.size = rank, len(board)
        self._board, self._barrier = board, barrier

    def gather_objects(self, value: T) -> list[T]:
        self._board[self.rank] = value
        self._barrier.wait(PATIENCE)
        values = list(self._board)
        self._barrier.wait(PATIENCE)
        return values

    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        parts = self.gather_objects(totals)
        return {name: sum(part[name] for part in parts) for name in totals}


def on_ranks(size: int, work: Callable[[Engine], T]) -> list[T]:
    """Results of ``work`` on each rank, in rank order."""
    board: list[Any] = [None] * size
    barrier = Barrier(size)

    def run(rank: int) -> T:
        try:
            return work(RankInThread(rank, board=board, barrier=barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
