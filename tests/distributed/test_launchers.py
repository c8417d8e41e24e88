"""The entry scripts under the real launchers, with one config: the same numbers under both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.jobs import HOROVOD, TORCH, both_engines, on_processes, run_launched
from tests.distributed.scripts import SCRIPTS, Command, run_commands
from tests.factories import TinyExperiment
from tests.pretraining_factories import PretrainExperiment
from tests.question_factories import QaExperiment
from tests.training.toys import assert_same_run

BIN = Path(sys.executable).parent
LAUNCHERS = {
    TORCH: [str(BIN / "torchrun"), "--standalone", "--nproc_per_node", "2", "--module"],
    HOROVOD: [str(BIN / "horovodrun"), "-np", "2", sys.executable, "-m"],
}
COMMUNICATORS = {TORCH: "TorchCommunicator", HOROVOD: "HorovodCommunicator"}
CHANGES: dict[str, Any] = {"train_batch_size": 2, "debug": 1}


class Commands:
    """One run of each entry script in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._retrieval = TinyExperiment(folder / "retrieval", num_train=7)
        self._questions = QaExperiment(folder / "questions", num_train=7)
        self._pretraining = PretrainExperiment(folder / "pretraining", num_train=7)

    def writing_to(self, name: str) -> list[Command]:
        """The runs with one output folder for each of them."""

        def output(script: str) -> str:
            return str(self.output(script, name))

        accumulated = {**CHANGES, "gradient_accumulation_steps": 2}
        return [
            ("retrieval", self._retrieval.arguments(output=output("retrieval"), **CHANGES)),
            ("questions", self._questions.arguments(output=output("questions"), **accumulated)),
            ("prompter", self._pretraining.prompting(output=output("prompter"), **CHANGES)),
            ("pretraining", self._pretraining.pretraining(output=output("pretraining"), **CHANGES)),
        ]

    def output(self, script: str, name: str) -> Path:
        """Where the run of a script writes."""
        return self._folder / name / script


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """Runs; those of two processes without a launcher are done, in the folder ``forked``."""
    made = Commands(tmp_path_factory.mktemp("experiments"))
    on_processes(2, run_commands, made.writing_to("forked"))
    return made


@both_engines
def test_all_entry_scripts(backend: str, commands: Commands, tmp_path: Path) -> None:
    """One test, because starting the processes takes most of its time."""
    listed = tmp_path / "commands.json"
    listed.write_text(json.dumps(commands.writing_to(backend)))
    run_launched([*LAUNCHERS[backend], "tests.distributed.scripts", str(listed)])
    for script in SCRIPTS:
        expected, found = (commands.output(script, name) for name in ("forked", backend))
        assert_same_run(expected, found)
        assert len(torch.load(found / "restore.pt", weights_only=True)["ranks"]) == 2
    places = [json.loads(listed.with_suffix(f".{rank}").read_text()) for rank in (0, 1)]
    assert places == [[COMMUNICATORS[backend], 2]] * 2
