"""The experiment of each config class, where no entry script names it."""

from typing import Any

from alpro.configs.loading import ResolvedConfig
from alpro.configs.schema import PretrainConfig, PrompterConfig, QaConfig, RetrievalConfig
from alpro.distributed.engine import Engine
from alpro.experiment.experiment import Experiment
from alpro.experiment.pretraining import VideoLanguageExperiment
from alpro.experiment.prompter import PrompterExperiment
from alpro.experiment.question_answering import QuestionAnsweringExperiment
from alpro.experiment.retrieval import RetrievalExperiment

_EXPERIMENTS: dict[type, type[Experiment[Any, Any]]] = {
    RetrievalConfig: RetrievalExperiment,
    QaConfig: QuestionAnsweringExperiment,
    PrompterConfig: PrompterExperiment,
    PretrainConfig: VideoLanguageExperiment,
}


def build_experiment(resolved: ResolvedConfig[Any], *, engine: Engine) -> Experiment[Any, Any]:
    """Build the experiment that a config describes."""
    return _EXPERIMENTS[type(resolved.config)](resolved, engine=engine)
