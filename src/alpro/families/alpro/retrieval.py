"""Text-to-video retrieval with ALPRO."""

from __future__ import annotations

from alpro.configs.experiment import ExperimentConfig
from alpro.families.alpro.checkpoint import TEXT_PREFIX
from alpro.families.alpro.model import AlproForRetrieval, shared_parts
from alpro.families.family import Architecture, TaskSpec
from alpro.modeling.bert import SplitBert
from alpro.tasks.retrieval.definition import Retrieval


def build_retrieval_model(
    config: ExperimentConfig, architecture: Architecture
) -> AlproForRetrieval:
    """The retrieval model of a config, randomly initialised."""
    return AlproForRetrieval(**shared_parts(config, architecture, SplitBert))


TASK = TaskSpec(
    definition=Retrieval,
    build_model=build_retrieval_model,
    # Released checkpoints have it, question answering does not; nothing reads it.
    allowed_missing=(f"{TEXT_PREFIX}cls.*",),
)
