"""ALPRO (Li et al., CVPR 2022) as a family: its models, weights and tasks."""

from __future__ import annotations

from alpro.configs.experiment import ExperimentConfig
from alpro.datasets.tokenization import WORDPIECE
from alpro.families.alpro.config import VideoEncoderConfig
from alpro.families.alpro.pretrained import CHECKPOINT, STARTING_WEIGHTS
from alpro.families.family import Architecture, ModelFamily

KEPT_PER_BLOCK = 8  # inputs of its norms and linear layers, at least, for the backward pass
BYTES_OF_HALF = 2  # per kept number, at least: bf16 and fp16


def kept_bytes(config: ExperimentConfig, architecture: Architecture) -> int:
    """Bytes that the video encoder keeps of a clip until the backward pass, at least."""
    encoder: VideoEncoderConfig = architecture["visual_model_cfg"]
    # Checkpointing keeps a block's input alone.
    num_tokens = config.num_frm * (config.crop_img_size // encoder.patch_size) ** 2
    per_block = 1 if encoder.gradient_checkpointing else KEPT_PER_BLOCK
    return encoder.depth * per_block * num_tokens * encoder.embed_dim * BYTES_OF_HALF


FAMILY = ModelFamily(
    tasks={
        # Finetuned on annotated sets.
        "retrieval": "alpro.families.alpro.retrieval",
        "question_answering": "alpro.families.alpro.question_answering",
        # The two stages of pretraining.
        "prompter": "alpro.families.alpro.prompter_pretraining",
        "pretraining": "alpro.families.alpro.pretraining",
    },
    # Shared by all tasks.
    tokenizer=WORDPIECE,
    vocab_size=lambda architecture: architecture["model_config"].vocab_size,
    checkpoint=CHECKPOINT,
    starting_weights=STARTING_WEIGHTS,
    kept_bytes=kept_bytes,
)
