"""The processes of a start find each other in a store that holds words of earlier starts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from unittest import mock

import pytest
from torch.distributed import HashStore

from alpro.distributed.torch_distributed import name_start

PATIENCE = 60  # seconds


@pytest.fixture
def store() -> HashStore:
    store = HashStore()
    store.set_timeout(timedelta(seconds=PATIENCE))
    return store


def start(store: HashStore, size: int) -> str:
    """The name on which the ranks of one start agree."""
    with ThreadPoolExecutor(size) as pool:
        ranks = [pool.submit(name_start, store, rank=rank, size=size) for rank in range(size)]
        names = {rank.result(PATIENCE) for rank in ranks}
    assert len(names) == 1
    return names.pop()


def test_each_start_has_a_name_of_its_own_that_all_ranks_know(store: HashStore) -> None:
    sizes = (3, 3, 2, 4, 1, 3)  # ranks that are no more have left their questions, too
    assert len({start(store, size) for size in sizes}) == len(sizes)


def test_rank_0_may_be_first_and_meet_old_questions_only(store: HashStore) -> None:
    old = start(store, 3)
    asked = [store.get(f"asks {rank}").decode() for rank in (1, 2)]
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(name_start, store, rank=0, size=3)
        while any(store.get(f"answer to {one}").decode() == old for one in asked):
            pass  # until rank 0 has answered those that are no more
        assert not first.done()
        others = [pool.submit(name_start, store, rank=rank, size=3) for rank in (2, 1)]
        names = {one.result(PATIENCE) for one in (first, *others)}
    assert len(names) == 1
    assert old not in names


def test_rank_0_may_be_last(store: HashStore) -> None:
    old = start(store, 3)
    with ThreadPoolExecutor(3) as pool:
        asked = [store.get(f"asks {rank}") for rank in (1, 2)]
        others = [pool.submit(name_start, store, rank=rank, size=3) for rank in (1, 2)]
        while any(store.get(f"asks {rank}") in asked for rank in (1, 2)):
            pass  # until both have asked anew
        assert not any(one.done() for one in others)
        name = name_start(store, rank=0, size=3)
        assert {one.result(PATIENCE) for one in others} == {name}
    assert name != old


def test_a_start_that_was_killed_while_it_met_confuses_nobody(store: HashStore) -> None:
    """Rank 1 had asked and got an answer, which it did not confirm; rank 2 had not come."""
    killed = "name of the start that was killed"
    store.set("asks 1", "gone")
    store.set("answer to gone", killed)
    store.set(f"{killed} reached 2", "")
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(name_start, store, rank=0, size=3)
        while store.get("answer to gone").decode() == killed:
            pass  # until rank 0 has answered the one that is no more
        others = [pool.submit(name_start, store, rank=rank, size=3) for rank in (1, 2)]
        names = {one.result(PATIENCE) for one in (first, *others)}
    assert names == {store.get("answer to gone").decode()}
    assert killed not in names


def test_rank_0_does_not_wait_once_nobody_is_missing(store: HashStore) -> None:
    with mock.patch("time.sleep", side_effect=AssertionError("slept")):
        assert name_start(store, rank=0, size=1)
