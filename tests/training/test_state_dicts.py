"""State dicts as people have them: wrapped, beside other objects, of diverged runs."""

from __future__ import annotations

import argparse
import logging
import os
from collections import OrderedDict, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from alpro.errors import InputError
from alpro.families.alpro.checkpoint import ROOTS
from alpro.families.alpro.family import FAMILY, load_bert, load_vit
from alpro.training.state_dicts import read_shapes, read_state
from tests.modeling.models import small_model, small_prompter, small_qa_model
from tests.training.toys import assert_same
from tests.weights import load_checkpoint

HEAD = "visual_encoder.model.head."
POS_EMBED = "visual_encoder.model.pos_embed"
POSITION_IDS = "text_encoder.bert.embeddings.position_ids"


class EasyDict(dict[str, Any]):
    """A class of another project."""


class Hostile:
    """An object whose pickle makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def beside(folder: Path) -> dict[Any, Any]:
    """What people have beside the weights."""
    return {
        "epoch": 3,
        "best": np.float64(0.4),
        "curve": np.arange(3),
        "args": argparse.Namespace(lr=1e-4, head="linear"),
        "config": EasyDict(model=EasyDict(lr=1e-4)),
        "root": Path("/data"),
        "date": datetime(2022, 1, 1),
        "size": torch.Size([1]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "names": {"a", "b"},
        "function": os.path.join,
        "hostile": Hostile(folder / "made"),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        (1, 2): "a key that is no text",
    }


@pytest.fixture
def source() -> dict[str, Tensor]:
    """Weights that no fresh model has."""
    model = small_model()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return dict(model.state_dict())


def write(folder: Path, content: Any, *, legacy: bool = False, protocol: int = 2) -> Path:
    path = folder / "x.pt"
    torch.save(
        content,
        path,
        _use_new_zipfile_serialization=not legacy,
        pickle_protocol=protocol,
    )
    return path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_beside_the_weights_are_ignored_and_logged(
    tmp_path: Path,
    source: dict[str, Tensor],
    caplog: pytest.LogCaptureFixture,
    legacy: bool,
    protocol: int,
) -> None:
    content = {"model": source, **beside(tmp_path)}
    path = write(tmp_path, content, legacy=legacy, protocol=protocol)
    model = small_model()
    with caplog.at_level(logging.INFO):
        load_checkpoint(model, path)
    assert_same(dict(model.state_dict()), source)
    assert not (tmp_path / "made").exists()
    assert f"{path}: the weights are those under model" in caplog.text
    assert f"{path}: 1 other tensors are not read" in caplog.text
    assert f"{path}: objects of other classes are left alone: " in caplog.text
    assert "argparse.Namespace" in caplog.text


@pytest.mark.parametrize("kind", [dict, OrderedDict, EasyDict, "defaultdict", "tuple", "module"])
def test_any_container_holds_a_state_dict(
    tmp_path: Path, source: dict[str, Tensor], kind: Any
) -> None:
    content: Any = kind(source) if isinstance(kind, type) else source
    if kind == "defaultdict":
        content = defaultdict(list, source)
    elif kind == "tuple":
        content = (source, {"lr": 1})
    elif kind == "module":
        content = small_model()
        content.load_state_dict(source)
        content = {"net": nn.DataParallel(content)}
    model = small_model()
    load_checkpoint(model, write(tmp_path, content))
    assert_same(dict(model.state_dict()), source)


def test_weights_are_cast_to_the_model(tmp_path: Path, source: dict[str, Tensor]) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn):
        cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in source.items()}
        model = small_model(num_frames=4, image_size=16)  # with embeddings to resize
        load_checkpoint(model, write(tmp_path, cast))
        for name, value in model.state_dict().items():
            assert value.dtype == source[name].dtype
            if value.shape == source[name].shape:
                assert torch.equal(value, cast[name].to(value.dtype)), name


def test_tied_weights_are_read_once(tmp_path: Path, source: dict[str, Tensor]) -> None:
    state = read_state(write(tmp_path, source), ROOTS)
    tied = ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
    first, second = (state[f"text_encoder.{name}"] for name in tied)
    assert first.data_ptr() == second.data_ptr()


def test_of_an_average_and_a_model_the_model_is_taken_and_logged(
    tmp_path: Path, source: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    averaged = {name: torch.zeros_like(value) for name, value in source.items()}
    model = small_model()
    path = write(tmp_path, {"model_ema": averaged, "model": source})
    with caplog.at_level(logging.INFO):
        load_checkpoint(model, path)
    assert_same(dict(model.state_dict()), source)
    assert f"{len(source)} other tensors are not read, also weights under model_ema" in caplog.text


def without(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(prefixes)}


def test_what_a_checkpoint_of_lavis_lacks_is_not_asked_for(
    tmp_path: Path, source: dict[str, Tensor]
) -> None:
    state = without(source, HEAD, "text_encoder.cls.")
    lavis = {name.replace("text_encoder.bert.", "text_encoder."): x for name, x in state.items()}
    path = write(tmp_path, {"model": without(lavis, POSITION_IDS), "scaler": None, "config": {}})
    model = small_model()
    load_checkpoint(model, path, allowed_missing=("text_encoder.cls.*",))
    loaded = dict(model.state_dict())
    assert_same({name: loaded[name] for name in state}, state)


def test_a_checkpoint_of_lavis_for_questions_has_encoders_and_classifier_alone(
    tmp_path: Path,
) -> None:
    trained = dict(small_qa_model().state_dict())
    state = without(trained, HEAD, "vision_proj", "text_proj", "temp", "itm_head")
    model = small_qa_model()
    path = write(tmp_path, {"model": state})
    load_checkpoint(
        model, path, allowed_missing=FAMILY.load_task("question_answering").allowed_missing
    )
    loaded = dict(model.state_dict())
    assert_same({name: loaded[name] for name in state}, state)


def refused(path: Path, model: nn.Module | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(model or small_model(), path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_named(
    tmp_path: Path, source: dict[str, Tensor], number: float
) -> None:
    source["vision_proj.weight"][2, 3] = number
    message = refused(write(tmp_path, source))
    total = source["vision_proj.weight"].numel()
    assert f"vision_proj.weight: 1 of {total} numbers are NaN or infinite" in message
    assert "a run that diverged" in message


def test_numbers_too_large_for_the_model_are_named(
    tmp_path: Path, source: dict[str, Tensor]
) -> None:
    large = {**source, "temp": torch.tensor(1e300, dtype=torch.float64)}
    assert "temp: 1 of 1 numbers are NaN or infinite" in refused(write(tmp_path, large))


def test_large_numbers_are_numbers(tmp_path: Path, source: dict[str, Tensor]) -> None:
    source["vision_proj.weight"].fill_(3e38)  # their sum is infinite
    load_checkpoint(small_model(), write(tmp_path, source))


def test_unused_tensors_may_be_not_finite(tmp_path: Path, source: dict[str, Tensor]) -> None:
    unused = {"prompter.temp": torch.tensor(float("nan"))}
    load_checkpoint(small_model(), write(tmp_path, {**source, **unused}))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_numbers_of_another_kind_are_named(
    tmp_path: Path, source: dict[str, Tensor], dtype: torch.dtype
) -> None:
    state = {**source, "temp": torch.ones((), dtype=dtype)}
    assert f"temp holds {dtype}, the model's is torch.float32" in refused(write(tmp_path, state))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("x", "temp is str, not a tensor"),
        ([1.0], "temp is list, not a tensor"),
        (np.zeros(()), "temp is an object of numpy.ndarray, not a tensor"),
        (torch.eye(2).to_sparse(), "temp is sparse"),
        (torch.zeros((), device="meta"), "temp is a meta tensor"),
    ],
)
def test_other_objects_under_known_names_are_named(
    tmp_path: Path, source: dict[str, Tensor], value: Any, told: str
) -> None:
    key = "vision_proj.weight" if isinstance(value, str) else "temp"
    assert told.replace("temp", key) in refused(write(tmp_path, {**source, key: value}))


def test_a_giant_position_embedding_is_refused_unread(
    tmp_path: Path, source: dict[str, Tensor]
) -> None:
    giant = torch.zeros(1).expand(1, 1 + 30_000 * 30_000, source[POS_EMBED].shape[2])
    message = refused(write(tmp_path, {**source, POS_EMBED: giant}))
    assert f"{POS_EMBED} is an expanded view" in message


def test_shapes_are_read_without_numbers(tmp_path: Path, source: dict[str, Tensor]) -> None:
    giant = torch.zeros(1).expand(1 << 30, 1 << 20)
    shapes = read_shapes(write(tmp_path, {"model": {**source, "mpm_head.2.weight": giant}}), ROOTS)
    assert shapes.pop("mpm_head.2.weight") == (1 << 30, 1 << 20)
    assert shapes == {name: tuple(value.shape) for name, value in source.items()}


def test_position_ids_are_the_model_s_own(tmp_path: Path, source: dict[str, Tensor]) -> None:
    path = write(tmp_path, {**source, POSITION_IDS: torch.full((1, 7), 1 << 40)})
    model = small_model()
    load_checkpoint(model, path)
    assert torch.equal(model.state_dict()[POSITION_IDS], source[POSITION_IDS])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "expected a dict of tensors .*found dict"),
        (None, "expected a dict of tensors .*found NoneType"),
        (torch.zeros(2), "expected a dict of tensors, found Tensor"),
        ({"temp": "x"}, r"expected a dict of tensors .*found str \(temp\)"),
        ({0: torch.zeros(2), 1: torch.zeros(2)}, "none of its 2 tensors .*first are 0, 1"),
        ({(1, 2): torch.zeros(2)}, "none of its 1 tensors .*first are <tuple>"),
        ({"a\x1b[31m": torch.zeros(2)}, r"first are a\\x1b\[31m"),
        (argparse.Namespace(a=1), "found an object of argparse.Namespace"),
        ({"temp": torch.zeros(()), "module.temp": torch.ones(())}, "temp is there twice"),
    ],
)
def test_files_without_our_weights_are_described(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_checkpoint(small_model(), write(tmp_path, content))


def test_clip_is_recognised(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text = {**small, "num_attention_heads": 2, "vocab_size": 20, "max_position_embeddings": 8}
    vision = {**small, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(tmp_path)
    for load in (load_vit, load_bert):
        with pytest.raises(InputError, match="By its names it is CLIP") as caught:
            load(small_model(), tmp_path)
        assert "Wanted is " in str(caught.value)


def test_encoders_are_taken_out_of_a_whole_checkpoint(tmp_path: Path) -> None:
    donor = small_prompter()
    for parameter in donor.parameters():
        nn.init.normal_(parameter)
    path = write(tmp_path, {"model": donor.state_dict()})
    model = small_model()
    load_vit(model, path)
    load_bert(model, path)
    expected = donor.state_dict()
    for name, value in model.state_dict().items():
        if name.startswith(("visual_encoder.", "text_encoder.")) and not name.startswith(HEAD):
            assert torch.equal(value, expected[name]), name
