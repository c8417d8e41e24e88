"""Entry scripts in the processes of a job that is there already.

    torchrun --nproc_per_node 2 --module tests.distributed.scripts COMMANDS
    horovodrun -np 2 python -m tests.distributed.scripts COMMANDS

COMMANDS is a JSON file, a list of ``[script, arguments]``. All share the processes, since starting
them takes longer than most runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np

from alpro.datasets.decoding import FrameSelector, Video
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.distributed.engine import Engine
from alpro.distributed.launch import launch_engine
from alpro.distributed.multi_process import DistributedEngine
from alpro.program import run_script
from pretrain import run_pretrain_contrastive_only, run_pretrain_sparse
from tasks import run_video_qa, run_video_retrieval
from tests.factories import FakeDecoder

Command = tuple[str, Sequence[str]]
"""Name of an entry script, and its arguments."""

SCRIPTS: dict[str, ModuleType] = {
    "retrieval": run_video_retrieval,
    "questions": run_video_qa,
    "prompter": run_pretrain_contrastive_only,
    "pretraining": run_pretrain_sparse,
}


class TerminatingDecoder(FakeDecoder):
    """Sends its process SIGTERM with a certain read of a training video."""

    def __init__(self, *, last_read: int | None) -> None:
        super().__init__()
        self.last_read = last_read

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        frames = super().read(video, select, preprocessing=preprocessing)
        assert isinstance(video, Path)
        if video.stem.startswith("train") and self.training_reads.total() == self.last_read:
            os.kill(os.getpid(), signal.SIGTERM)
        return frames

    @property
    def training_reads(self) -> Counter[str]:
        """How often each training video was read."""
        reads = {name: count for name, count in self.reads.items() if name.startswith("train")}
        return Counter(reads)


def run_commands(
    engine: Engine, commands: Sequence[Command], *, stop_at_read: int | None = None
) -> Counter[str]:
    """Run entry scripts as this process of the engine's job.

    Args:
        engine: of the job; it outlives the scripts, since Horovod cannot be started a second time.
        commands: what to run, one after the other.
        stop_at_read: number of the training video read by this process with which SIGTERM comes.

    Returns:
        How often each training video was read by this process.
    """

    @contextmanager
    def reuse(*_: object, **__: object) -> Iterator[Engine]:
        yield engine

    decoder = TerminatingDecoder(last_read=stop_at_read)
    for script, arguments in commands:
        with (
            mock.patch("alpro.runs.run.launch_engine", reuse),
            mock.patch("alpro.experiment.data.make_decoder", return_value=decoder),
            mock.patch("sys.argv", [f"{script}.py", *arguments]),
        ):
            try:
                run_script(SCRIPTS[script].main)
            except SystemExit as end:
                if end.code:
                    raise
    return decoder.training_reads


def main() -> None:
    """Run what a file lists, and note beside it what carries the messages."""
    path = Path(sys.argv[1])
    commands = json.loads(path.read_text())
    with launch_engine("auto", device="cpu", precision="fp32", num_threads=1) as engine:
        assert isinstance(engine, DistributedEngine)
        name = type(engine._communicator).__name__  # noqa: SLF001
        path.with_suffix(f".{engine.rank}").write_text(json.dumps([name, engine.size]))
        run_commands(engine, commands)


if __name__ == "__main__":
    main()
