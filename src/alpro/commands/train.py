"""Training and evaluation as commands: the entry scripts of ``src/tasks`` and ``src/pretrain``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from alpro.configs.loading import load_config
from alpro.configs.schema import PretrainConfig, PrompterConfig, QaConfig, RetrievalConfig
from alpro.errors import run_script


def retrieval(arguments: Sequence[str]) -> int:
    """Finetune or evaluate text-video retrieval."""
    return _run(RetrievalConfig, arguments, "retrieval", "RetrievalExperiment")


def question_answering(arguments: Sequence[str]) -> int:
    """Finetune or evaluate video question answering."""
    return _run(QaConfig, arguments, "question_answering", "QuestionAnsweringExperiment")


def prompter(arguments: Sequence[str]) -> int:
    """Train the prompter."""
    return _run(PrompterConfig, arguments, "prompter", "PrompterExperiment")


def pretrain(arguments: Sequence[str]) -> int:
    """Train the video-language model."""
    return _run(PretrainConfig, arguments, "pretraining", "VideoLanguageExperiment")


def _run(config_class: Any, arguments: Sequence[str], module: str, experiment_class: str) -> int:
    """Train or infer as the entry script of a task does, and end as it ends."""

    def main() -> None:
        resolved = load_config(config_class, arguments)
        # The heavy imports come after the config: --help and its errors come at once.
        from alpro.experiment import finetuning, run
        from alpro.experiment.launch import launch_run

        experiment: Callable[..., Any] = getattr(
            import_module(f"alpro.experiment.{module}"), experiment_class
        )
        with launch_run(resolved) as engine:
            if issubclass(config_class, PrompterConfig | PretrainConfig):
                run.pretrain(experiment(resolved, engine=engine))
            elif resolved.config.do_inference:
                finetuning.infer(experiment(resolved, engine=engine))
            else:
                finetuning.finetune(experiment(resolved, engine=engine))

    run_script(main)
    return 0
