"""Training and evaluation as commands: the entry scripts of ``src/tasks`` and ``src/pretrain``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alpro.configs.downstream import DownstreamConfig
from alpro.configs.loading import load_config
from alpro.program import run_script
from alpro.tasks.pretraining.config import PretrainConfig, PrompterConfig
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig


def retrieval(arguments: Sequence[str]) -> int:
    """Finetune or evaluate text-video retrieval."""
    return _run(RetrievalConfig, arguments, program="alpro retrieval")


def question_answering(arguments: Sequence[str]) -> int:
    """Finetune or evaluate video question answering."""
    return _run(QaConfig, arguments, program="alpro question-answering")


def prompter(arguments: Sequence[str]) -> int:
    """Train the prompter."""
    return _run(PrompterConfig, arguments, program="alpro pretrain-prompter")


def pretrain(arguments: Sequence[str]) -> int:
    """Train the video-language model."""
    return _run(PretrainConfig, arguments, program="alpro pretrain")


def _run(config_class: Any, arguments: Sequence[str], *, program: str) -> int:
    """Train or infer as the entry script of a task does, and end as it ends."""

    def main() -> None:
        resolved = load_config(config_class, arguments, program=program)
        # The heavy imports come after the config: --help and its errors come at once.
        from alpro.experiment.experiment import Experiment
        from alpro.runs.run import finetune, infer, launch_run
        from alpro.runs.run import pretrain as run_pretraining

        with launch_run(resolved) as engine:
            experiment = Experiment(resolved, engine=engine)
            if not issubclass(config_class, DownstreamConfig):
                run_pretraining(experiment)
            elif resolved.config.do_inference:
                infer(experiment)
            else:
                finetune(experiment)

    run_script(main)
    return 0
