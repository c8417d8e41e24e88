from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from alpro.families.alpro.model import AlproForRetrieval, TimeSformerEncoder
from alpro.families.alpro.question_answering import AlproForQuestionAnswering
from alpro.modeling.bert import SplitBert, SplitBertEncoder
from alpro.modeling.timesformer import TimeSformer
from tests.modeling.models import (
    NUM_LABELS,
    WIDTH,
    random_frames,
    random_text,
    small_headless_bert,
    small_model,
    small_qa_model,
    small_timesformer,
)

UNUSED = ("temp", "vision_proj.", "text_proj.", "itm_head.", "visual_encoder.model.head.")


@torch.no_grad()
def test_answers_are_read_from_the_first_fused_token() -> None:
    model = small_qa_model().eval()
    video, text = model.encode_video(random_frames()), model.encode_text(*random_text())
    logits = model.answer(text, video)
    assert logits.shape == (2, NUM_LABELS)
    first = model.fuse(text, video)[:, 0]
    state = model.state_dict()
    weights = [state[f"classifier.{layer}.weight"] for layer in (0, 2)]
    biases = [state[f"classifier.{layer}.bias"] for layer in (0, 2)]
    hidden = (first @ weights[0].t() + biases[0]).clamp(min=0)
    assert hidden.shape == (2, 2 * WIDTH)
    expected = hidden @ weights[1].t() + biases[1]
    torch.testing.assert_close(logits, expected)


@torch.no_grad()
def test_several_questions_share_a_video() -> None:
    model = small_qa_model().eval()
    frames, (ids, mask) = random_frames(2), random_text(3)
    video, text = model.encode_video(frames), model.encode_text(ids, mask)
    of_question = torch.tensor([1, 0, 1])
    together = model.answer(text, video.select(of_question))
    apart = [
        model.answer(
            model.encode_text(ids[i : i + 1], mask[i : i + 1]),
            model.encode_video(frames[row : row + 1]),
        )
        for i, row in enumerate(of_question.tolist())
    ]
    torch.testing.assert_close(together, torch.cat(apart))


@torch.no_grad()
def test_padding_changes_no_answer() -> None:
    model = small_qa_model().eval()
    video, (ids, mask) = model.encode_video(random_frames(1)), random_text(1, length=4)
    padded = torch.cat([ids, torch.full((1, 3), 5)], dim=1), torch.cat([mask, mask[:, :3] * 0], 1)
    short = model.answer(model.encode_text(ids, mask), video)
    torch.testing.assert_close(model.answer(model.encode_text(*padded), video), short)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_every_trainable_parameter_receives_a_gradient(gradient_checkpointing: bool) -> None:
    model = small_qa_model(gradient_checkpointing=gradient_checkpointing)
    logits = model.answer(model.encode_text(*random_text()), model.encode_video(random_frames()))
    functional.cross_entropy(logits, torch.tensor([0, 6])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(UNUSED), name
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_names_are_those_of_released_checkpoints() -> None:
    retrieval, answering = set(small_model().state_dict()), set(small_qa_model().state_dict())
    heads = {f"classifier.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    without_prefix = {
        name.replace("text_encoder.bert.", "text_encoder.")
        for name in retrieval
        if not name.startswith("text_encoder.cls.")
    }
    assert answering == without_prefix | heads
    assert "text_encoder.embeddings.position_ids" in answering


def test_published_sizes() -> None:
    """The counts of tensors and parameters that the original's classes have."""
    with torch.device("meta"):
        retrieval = AlproForRetrieval(
            TimeSformerEncoder(TimeSformer(image_size=224, num_frames=8)), SplitBert()
        )
        answering = AlproForQuestionAnswering(
            TimeSformerEncoder(TimeSformer(image_size=224, num_frames=16)),
            SplitBertEncoder(),
            num_labels=1500,
        )
    assert len(retrieval.state_dict()) == 461
    assert sum(parameter.numel() for parameter in retrieval.parameters()) == 231_475_917
    assert len(answering.state_dict()) == 458
    assert sum(parameter.numel() for parameter in answering.parameters()) == 234_346_095


def test_there_must_be_an_answer() -> None:
    with pytest.raises(ValueError, match="num_labels 0"):
        AlproForQuestionAnswering(
            TimeSformerEncoder(small_timesformer()), small_headless_bert(), num_labels=0
        )
