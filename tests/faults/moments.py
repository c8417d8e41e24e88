"""Moments at which a run of the harness is disturbed, and what must become of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.faults.points import POINTS, Fault

NUM_UPDATES = 40
SAVE_STEPS = 4
NUM_TIMES = {
    # How often each rank, or the one that writes, reaches a point at least; updates at no point,
    # of which the last ones are left out, so that the training is not over before the signal comes.
    "": NUM_UPDATES - SAVE_STEPS,
    **dict.fromkeys(("update", "step", "stepped"), NUM_UPDATES),
    **dict.fromkeys(("decode", "forward", "backward"), 2 * NUM_UPDATES),
    **dict.fromkeys(("validation", "validated"), 5),
    **dict.fromkeys(("bytes of checkpoint", "written checkpoint", "renamed checkpoint"), 4),
    **dict.fromkeys(("bytes of restore", "written restore", "renamed restore"), 10),
    "linked restore": 9,
}
WRITTEN_POINTS = [point for point in POINTS if point.endswith(("restore", "checkpoint"))]
BEFORE_VOTE = ("update", "forward", "backward")  # points before the ranks agree on whether to stop
SHARE_OF_ALL = 0.3  # of the moments that happen to all processes at once


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When and how a run is disturbed."""

    action: str
    rank: int | None
    """None for all; of SIGTERM at a time, for the launcher, which passes it on."""
    point: str = ""
    """A named point; empty for a time."""
    time: int = 1
    share: float = 1.0
    delay: float = 0.0
    """Without a point: so many updates after update ``time`` has begun."""

    def __str__(self) -> str:
        if not self.point:
            return f"{self.delay:.2f} updates after the start of {self.time}"
        share = f" {self.share:.0%}" if "bytes" in self.point and self.action == "kill" else ""
        return f"{self.point}{share}, time {self.time}"

    @property
    def is_for_launcher(self) -> bool:
        """Whether the launcher gets the signal."""
        return self.action == "term" and self.rank is None and not self.point

    def whom(self) -> str:
        """Who gets the signal."""
        if self.is_for_launcher:
            return "launcher"
        return "all" if self.rank is None else f"rank {self.rank}"

    def fault(self) -> list[Fault]:
        """The fault of a named point."""
        if not self.point:
            return []
        action = self.action + (" all" if self.rank is None else "")
        # Of a fault that happens to all, the first to reach the point tells the others.
        return [
            Fault(point=self.point, action=action, time=self.time, share=self.share, rank=self.rank)
        ]


def draw_moments(count: int, *, size: int, seed: int, points: bool) -> Iterator[Moment]:
    """Random moments, half of them at named points.

    Args:
        count: how many.
        size: number of processes.
        seed: of the draws.
        points: begin with a kill at every named point.
    """
    rng = random.Random(seed)
    names = list(POINTS)
    for number in range(count):
        first = points and number < len(names)
        point = names[number] if first else rng.choice([*names, *[""] * len(names)])
        ranks = [0] if point in WRITTEN_POINTS else range(size)
        yield Moment(
            action="kill" if first else rng.choice(("kill", "kill", "kill", "term")),
            rank=None if rng.random() < SHARE_OF_ALL else rng.choice(ranks),
            point=point,
            time=rng.randint(1, NUM_TIMES[point]),
            share=rng.random(),
            delay=rng.random(),
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a disturbed run, and where its restart went on."""

    engine: str
    size: int
    struck: bool
    """Whether the fault happened, or the signal reached a process."""
    code: int
    """The launcher's exit code, for one process that process's."""
    ends: Mapping[int, int]
    """Exit codes of the ranks that ended by themselves."""
    in_hand: Mapping[int, int]
    """Updates that ranks had in hand when SIGTERM came to them, 0 before the first."""
    reached: int
    """The last update that rank 0 began."""
    went_on: int
    """The update after which the restart went on."""


def problems(moment: Moment, outcome: Outcome) -> list[str]:
    """What has not become of a run as it should."""
    if not outcome.struck:
        return ["not struck"]
    if moment.action == "kill":
        return list(_problems_of_kill(outcome))
    return list(_problems_of_term(moment, outcome))


def _problems_of_kill(outcome: Outcome) -> Iterator[str]:
    if outcome.code == 0:
        yield "exit 0 after SIGKILL"
    # Rank 0 saves before it begins the next update.
    saved = max(0, outcome.reached - 1) // SAVE_STEPS * SAVE_STEPS
    if not saved <= outcome.went_on <= outcome.reached:
        yield f"went on after {outcome.went_on}, saved was {saved}"


def _problems_of_term(moment: Moment, outcome: Outcome) -> Iterator[str]:
    by_launcher = moment.is_for_launcher and outcome.engine != "single"
    if outcome.code and not by_launcher:  # torchrun ends with 1 if the signal is its own
        yield f"exit {outcome.code} after SIGTERM"
    for rank in range(outcome.size):
        code = outcome.ends.get(rank)
        # horovodrun waits for 5 seconds; what was saved is looked at below.
        if code or (code is None and not (by_launcher and outcome.engine == "horovod")):
            how = "did not end by itself" if code is None else f"ended with {code}"
            yield f"rank {rank} {how} after SIGTERM"
    if not outcome.in_hand:
        yield "SIGTERM reached no rank"
        return
    if moment.point in BEFORE_VOTE:
        # The process that reached the point; others may still be at the end of the update before.
        allowed = {max(outcome.in_hand.values())}
    else:
        first = min(outcome.in_hand.values())
        allowed = {first, min(first + 1, NUM_UPDATES)}
    if outcome.went_on not in allowed:
        wanted = " or ".join(map(str, sorted(allowed)))
        yield f"went on after {outcome.went_on} instead of {wanted}"
