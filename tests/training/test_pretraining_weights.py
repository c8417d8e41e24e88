"""Weights along the chain: prompter, pretraining, finetuning."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from alpro.errors import InputError
from alpro.families.alpro.checkpoint import ROOTS
from alpro.families.alpro.pretraining import check_num_entities, load_teacher
from alpro.families.alpro.pretraining_model import PROMPT_NAMES, Prompter, without_prompts
from alpro.training.state_dicts import read_shapes
from tests.modeling.models import (
    NUM_ENTITIES,
    random_frames,
    random_text,
    small_model,
    small_pretraining_model,
    small_prompter,
    small_qa_model,
)
from tests.training.toys import assert_same, make_plan, train
from tests.weights import load_checkpoint, load_starting_weights

NESTED = "prompter."
BERT, HEADLESS = "text_encoder.bert.", "text_encoder."
TIME_EMBED = "visual_encoder.model.time_embed"
POS_EMBED = "visual_encoder.model.pos_embed"


def save(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Write a model's checkpoint; returns its tensors."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(state, path)
    return state


def own_prompter(model: nn.Module) -> Prompter:
    prompter = model.prompter
    assert isinstance(prompter, Prompter)
    return prompter


def test_a_prompter_becomes_the_teacher(tmp_path: Path) -> None:
    path = tmp_path / "prompter.pt"
    taught = save(path, small_prompter(num_entities=9))  # of other entities
    model = small_pretraining_model()
    before = save(tmp_path / "before.pt", model)
    prompter = own_prompter(model)
    load_teacher(prompter, path)
    for name, value in prompter.state_dict().items():
        expected = before[NESTED + name] if name in PROMPT_NAMES else taught[name]
        assert torch.equal(value, expected), name
    own = {name: value for name, value in model.state_dict().items() if NESTED not in name}
    assert_same(own, {name: before[name] for name in own})
    assert not any(parameter.requires_grad for parameter in prompter.parameters())


def test_the_pretrained_model_itself_can_be_the_teacher(tmp_path: Path) -> None:
    path = tmp_path / "alpro.pt"
    state = save(path, small_pretraining_model(num_entities=9))
    prompter = small_prompter()
    load_teacher(prompter, path)
    for name, value in without_prompts(prompter.state_dict()).items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("make_teacher", [small_model, small_qa_model])
def test_a_finetuned_model_can_be_the_teacher(
    tmp_path: Path, make_teacher: partial[nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "finetuned.pt"
    state = save(path, make_teacher())
    prompter = small_prompter()
    with caplog.at_level(logging.INFO):
        load_teacher(prompter, path)
    for name, value in without_prompts(prompter.state_dict()).items():
        headless = name.replace(BERT, HEADLESS)
        if name in state or headless in state:
            assert torch.equal(value, state[name if name in state else headless]), name
        else:
            assert name.startswith("text_encoder.cls."), name
    assert f"{path}: its prompts are built from the list of entities" in caplog.text
    assert "prompt_feat" not in caplog.text


def test_a_teacher_of_fewer_frames_is_resized(tmp_path: Path) -> None:
    path = tmp_path / "prompter.pt"
    taught = save(path, small_prompter(num_frames=2))
    prompter = small_prompter(num_frames=4, image_size=16)
    load_teacher(prompter, path)
    state = prompter.state_dict()
    assert torch.equal(state[TIME_EMBED], taught[TIME_EMBED][:, [0, 0, 1, 1]])
    assert state[POS_EMBED].shape == (1, 17, 16)


def test_a_checkpoint_without_a_teacher_is_refused(tmp_path: Path) -> None:
    prompter = small_prompter()
    with pytest.raises(InputError, match=r"^teacher_weights_path: .*gone\.pt: there is no such"):
        load_teacher(prompter, tmp_path / "gone.pt")
    state = save(tmp_path / "prompter.pt", small_prompter())
    torch.save({**state, "vision_proj.weight": torch.zeros(8, 12)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"^teacher_weights_path: .*other\.pt: this checkpoint is"):
        load_teacher(prompter, tmp_path / "other.pt")
    torch.save({"temp": state["temp"]}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="the checkpoint lacks: visual_encoder.model.cls_token"):
        load_teacher(prompter, tmp_path / "other.pt")
    train(tmp_path, plan=make_plan())
    with pytest.raises(InputError, match="teacher_weights_path: .*this is a restore file"):
        load_teacher(prompter, tmp_path / "restore.pt")


def test_pretraining_continues_with_its_own_prompter(tmp_path: Path) -> None:
    path = tmp_path / "alpro.pt"
    state = save(path, small_pretraining_model())
    model = small_pretraining_model()
    check_num_entities(read_shapes(path, ROOTS), num_entities=NUM_ENTITIES, path=path)
    load_checkpoint(model, path)
    assert_same(dict(model.state_dict()), state)


def test_both_encoders_are_resized(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "alpro.pt"
    state = save(path, small_pretraining_model(num_frames=2))
    model = small_pretraining_model(num_frames=4, image_size=16)
    with caplog.at_level(logging.INFO):
        load_checkpoint(model, path)
    loaded = model.state_dict()
    for prefix in ("", NESTED):
        name = prefix + TIME_EMBED
        assert torch.equal(loaded[name], state[name][:, [0, 0, 1, 1]])
        assert f"{name} resized from (1, 2, 16) to (1, 4, 16)" in caplog.text
        assert f"{prefix}{POS_EMBED} resized from (1, 5, 16) to (1, 17, 16)" in caplog.text


@pytest.mark.parametrize("part", ["", "mpm_head.", NESTED])
def test_another_number_of_entities_is_named(tmp_path: Path, part: str) -> None:
    path = tmp_path / "alpro.pt"
    state = small_pretraining_model(num_entities=9).state_dict()
    torch.save({name: value for name, value in state.items() if part in name}, path)
    with pytest.raises(InputError) as caught:
        check_num_entities(read_shapes(path, ROOTS), num_entities=NUM_ENTITIES, path=path)
    assert str(caught.value) == (
        f"e2e_weights_path: {path} was pretrained with 9 entities, num_entities is 5. Set "
        "num_entities to 9, with the list of entities that it was trained with as "
        "entity_file_path."
    )


def test_half_a_prompter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "alpro.pt"
    state = save(path, small_pretraining_model())
    del state["prompter.vision_proj.bias"]
    torch.save(state, path)
    with pytest.raises(InputError, match=r"the checkpoint lacks: prompter\.vision_proj\.bias"):
        load_checkpoint(small_pretraining_model(), path)


def test_a_prompter_can_be_trained_on_with_other_entities(tmp_path: Path) -> None:
    path = tmp_path / "prompter.pt"
    state = save(path, small_prompter(num_entities=9))
    model = small_prompter()
    load_checkpoint(model, path, allowed_missing=PROMPT_NAMES, prepare=without_prompts)
    assert_same(without_prompts(model.state_dict()), without_prompts(state))


@pytest.mark.parametrize("num_entities", [None, NUM_ENTITIES])
@pytest.mark.parametrize(
    ("make_target", "missing"),
    [(small_model, ()), (small_qa_model, ("classifier.*",)), (small_prompter, PROMPT_NAMES)],
)
def test_a_pretrained_model_starts_every_other(
    tmp_path: Path,
    make_target: partial[nn.Module],
    missing: Sequence[str],
    num_entities: int | None,
) -> None:
    path = tmp_path / "alpro.pt"
    state = save(path, small_pretraining_model(num_entities=num_entities))
    check_start(make_target(), state, path=path, missing=missing)


@pytest.mark.parametrize(
    ("make_target", "missing"),
    [
        (small_model, ()),
        (small_qa_model, ("classifier.*",)),
        (partial(small_pretraining_model, num_entities=None), ()),
        (small_pretraining_model, (f"{NESTED}*", "mpm_head.*")),
    ],
)
def test_a_prompter_starts_every_other(
    tmp_path: Path, make_target: partial[nn.Module], missing: Sequence[str]
) -> None:
    path = tmp_path / "prompter.pt"
    check_start(make_target(), save(path, small_prompter()), path=path, missing=missing)


def check_start(
    model: nn.Module, state: dict[str, Tensor], *, path: Path, missing: Sequence[str]
) -> None:
    """Load a checkpoint: all that is not said to be missing must be the checkpoint's."""
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    load_starting_weights(
        model, checkpoint=path, vit=None, bert=path, random_init=False, allowed_missing=missing
    )
    new = tuple(pattern.removesuffix("*") for pattern in missing)
    for name, value in model.state_dict().items():
        if name.startswith(new) and missing:
            assert torch.equal(value, fresh[name]), name
        else:
            there = name if name in state else name.replace(HEADLESS, BERT, 1)
            assert torch.equal(value, state[there]), name


@torch.no_grad()
def test_finetuning_starts_from_pretrained_weights(tmp_path: Path) -> None:
    """Not only are the names right: the numbers that come out are the same."""
    pretrained = small_pretraining_model().eval()
    save(tmp_path / "alpro.pt", pretrained)
    retrieval = small_model().eval()
    load_checkpoint(retrieval, tmp_path / "alpro.pt")
    frames, (ids, mask) = random_frames(), random_text()
    scores = [
        model.match(model.encode_text(ids, mask), model.encode_video(frames))
        for model in (pretrained, retrieval)
    ]
    assert torch.equal(*scores)
