"""Small models for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alpro.families.alpro.model import AlproForRetrieval, TimeSformerEncoder
from alpro.families.alpro.pretraining_model import AlproForPretraining, Prompter
from alpro.families.alpro.question_answering import AlproForQuestionAnswering
from alpro.modeling.bert import SplitBert, SplitBertEncoder
from alpro.modeling.timesformer import TimeSformer

WIDTH = 16
NUM_FRAMES = 2
IMAGE_SIZE = 8
PATCH_SIZE = 4
NUM_PATCHES = 4
VOCAB_SIZE = 30
NUM_LABELS = 7
NUM_ENTITIES = 5

BERT_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": WIDTH,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "fusion_layer": 2,
    "max_position_embeddings": 12,
}


def small_timesformer(**changes: Any) -> TimeSformer:
    arguments = {
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "num_frames": NUM_FRAMES,
        "embed_dim": WIDTH,
        "depth": 2,
        "num_heads": 2,
        "drop_path_rate": 0.0,
        "time_embed_std": 0.5,
        "temporal_init": "normal",
    }
    return TimeSformer(**{**arguments, **changes})


def small_bert(**changes: Any) -> SplitBert:
    return SplitBert(**{**BERT_SIZES, **changes})


def small_headless_bert(**changes: Any) -> SplitBertEncoder:
    return SplitBertEncoder(**{**BERT_SIZES, **changes})


def small_model(**video_changes: Any) -> AlproForRetrieval:
    video = TimeSformerEncoder(small_timesformer(**video_changes))
    return AlproForRetrieval(video, small_bert(), embed_dim=8)


def small_qa_model(
    *, num_labels: int = NUM_LABELS, **video_changes: Any
) -> AlproForQuestionAnswering:
    video = TimeSformerEncoder(small_timesformer(**video_changes))
    return AlproForQuestionAnswering(
        video, small_headless_bert(), num_labels=num_labels, embed_dim=8
    )


def small_prompter(*, num_entities: int = NUM_ENTITIES, **video_changes: Any) -> Prompter:
    video = TimeSformerEncoder(small_timesformer(**video_changes))
    return Prompter(video, small_bert(), num_entities=num_entities, embed_dim=8)


def small_pretraining_model(
    *, num_entities: int | None = NUM_ENTITIES, **video_changes: Any
) -> AlproForPretraining:
    """With a prompter, unless there are no entities."""
    prompter = None
    if num_entities is not None:
        prompter = small_prompter(num_entities=num_entities, **video_changes)
    video = TimeSformerEncoder(small_timesformer(**video_changes))
    text = small_bert(train_mlm_head=True)
    return AlproForPretraining(video, text, prompter=prompter, embed_dim=8)


def random_frames(num_videos: int = 2, *, num_frames: int = NUM_FRAMES) -> Tensor:
    return torch.randn(num_videos, num_frames, 3, IMAGE_SIZE, IMAGE_SIZE)


def random_text(num_texts: int = 2, *, length: int = 5) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, L); all but the first text end in one token of padding."""
    ids = torch.randint(1, VOCAB_SIZE, (num_texts, length))
    mask = torch.ones_like(ids)
    ids[1:, -1] = 0
    mask[1:, -1] = 0
    return ids, mask
