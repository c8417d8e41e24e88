"""Starting weights in each layout that is in use, and files that do not fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel

from alpro.errors import InputError
from alpro.experiment.weights import load_checkpoint
from alpro.families.clip_vip.checkpoint import (
    CHECKPOINT,
    load_clip,
    load_starting_weights,
    missing_weights,
)
from alpro.families.clip_vip.model import ClipVip
from alpro.families.clip_vip.translation import resolve
from tests.families.clip_vip.models import clip_vip, transformers_clip

NEW = ("added_cls", "temporal_embedding", "logit_scale")
EMBEDDINGS = "clipmodel.vision_model.embeddings."


def openai_names(clip: CLIPModel, *, text: str = "") -> dict[str, Tensor]:
    """The weights in the names of OpenAI's ``clip/model.py``; open_clip adds a prefix of texts."""
    state = {name: value.clone() for name, value in clip.state_dict().items()}
    out = {
        "logit_scale": state["logit_scale"],
        f"{text}text_projection": state["text_projection.weight"].t().contiguous(),
        "visual.proj": state["visual_projection.weight"].t().contiguous(),
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        f"{text}token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
    }
    for there, here in (("visual.", "vision_model."), (text, "text_model.")):
        position = state[f"{here}embeddings.position_embedding.weight"]
        out[f"{there}positional_embedding"] = position
        norms = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}
        for norm, ours in (
            norms.items() if there == "visual." else [("ln_final", "final_layer_norm")]
        ):
            out |= {f"{there}{norm}.{x}": state[f"{here}{ours}.{x}"] for x in ("weight", "bias")}
        for n in range(2):
            block, layer = f"{there}transformer.resblocks.{n}.", f"{here}encoder.layers.{n}."
            for x in ("weight", "bias"):
                attention = f"{layer}self_attn."
                qkv = [state[f"{attention}{part}_proj.{x}"] for part in "qkv"]
                out[f"{block}attn.in_proj_{x}"] = torch.cat(qkv)
                out[f"{block}attn.out_proj.{x}"] = state[f"{attention}out_proj.{x}"]
                out[f"{block}ln_1.{x}"] = state[f"{layer}layer_norm1.{x}"]
                out[f"{block}ln_2.{x}"] = state[f"{layer}layer_norm2.{x}"]
                out[f"{block}mlp.c_fc.{x}"] = state[f"{layer}mlp.fc1.{x}"]
                out[f"{block}mlp.c_proj.{x}"] = state[f"{layer}mlp.fc2.{x}"]
    return out


def write_transformers(clip: CLIPModel, folder: Path) -> Path:
    clip.save_pretrained(folder)
    return folder


def write_transformers_bin(clip: CLIPModel, folder: Path) -> Path:
    folder.mkdir()
    ids = {f"{tower}.embeddings.position_ids": torch.arange(4)[None] for tower in (
        "text_model", "vision_model")}  # fmt: skip
    torch.save(clip.state_dict() | ids, folder / "pytorch_model.bin")
    return folder


def write_openai(clip: CLIPModel, folder: Path) -> Path:
    folder.mkdir()
    settings = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(12)}
    settings["vocab_size"] = torch.tensor(50)
    torch.save(openai_names(clip) | settings, folder / "ViT-B-32.pt")
    return folder / "ViT-B-32.pt"


class Modules(nn.Module):
    """Modules with the given parameters, for TorchScript."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in dict.fromkeys(name.split(".")[0] for name in state):
            below = {
                k.removeprefix(f"{name}."): x for k, x in state.items() if k.startswith(f"{name}.")
            }
            if below:
                self.add_module(name, Modules(below))
            else:
                self.register_parameter(name, nn.Parameter(state[name], requires_grad=False))
        self.register_buffer("vocab_size", torch.tensor(50))

    def forward(self, x: Tensor) -> Tensor:
        return x


def write_torchscript(clip: CLIPModel, folder: Path) -> Path:
    folder.mkdir()
    scripted = torch.jit.script(Modules(openai_names(clip)))
    torch.jit.save(scripted, folder / "ViT-B-32.pt")
    return folder / "ViT-B-32.pt"


def write_open_clip(clip: CLIPModel, folder: Path) -> Path:
    folder.mkdir()
    save_file(openai_names(clip, text="text."), folder / "open_clip_model.safetensors")
    return folder


def write_open_clip_run(clip: CLIPModel, folder: Path) -> Path:
    folder.mkdir()
    state = {f"module.{name}": value for name, value in openai_names(clip).items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}}
    content = {"epoch": 3, "name": "run", "state_dict": state, "optimizer": optimizer}
    torch.save(content, folder / "epoch_3.pt")
    return folder / "epoch_3.pt"


LAYOUTS: list[tuple[Callable[[CLIPModel, Path], Path], str]] = [
    (write_transformers, "transformers"),
    (write_transformers_bin, "transformers"),
    (write_openai, "OpenAI"),
    (write_torchscript, "OpenAI"),
    (write_open_clip, "OpenAI"),
    (write_open_clip_run, "OpenAI"),
]


@pytest.mark.parametrize(("write", "layout"), LAYOUTS, ids=[w.__name__ for w, _ in LAYOUTS])
@pytest.mark.parametrize("plain", [False, True])
def test_clip_is_read_in_every_layout(
    write: Callable[[CLIPModel, Path], Path],
    layout: str,
    plain: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clip, model, initial = transformers_clip(), clip_vip(plain=plain), clip_vip(plain=plain)
    load_clip(model, write(clip, tmp_path / "weights"))
    expected, before = clip.state_dict(), initial.state_dict()
    for name, value in model.state_dict().items():
        source = before[name] if name.endswith(NEW) else expected[name.removeprefix("clipmodel.")]
        torch.testing.assert_close(value, source, rtol=0, atol=0, msg=name)
    # The load is reported.
    num_tensors = len(model.state_dict())
    assert f"names of {layout}" in caplog.text
    num_loaded = num_tensors - (1 if plain else 3)
    assert f"{num_loaded} of the {num_tensors} tensors of the model loaded" in caplog.text
    assert ("1 tensor clipmodel.vision_model.embeddings.added_cls missing" in caplog.text) != plain


def released(folder: Path, **changes: Any) -> tuple[ClipVip, Path]:
    """A checkpoint of CLIP-ViP as its authors save it."""
    torch.manual_seed(5)
    model = clip_vip(**changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    ids = {f"{EMBEDDINGS}position_ids": torch.arange(5)[None]}
    ids["clipmodel.text_model.embeddings.position_ids"] = torch.arange(12)[None]
    torch.save(model.state_dict() | ids, folder / "pretrain_clipvip_base_32.pt")
    return model, folder / "pretrain_clipvip_base_32.pt"


def load(model: ClipVip, path: Path) -> None:
    load_checkpoint(model, path, layout=CHECKPOINT)


@pytest.mark.parametrize("read", [load, load_clip])
def test_released_checkpoints_are_read(
    read: Callable[[ClipVip, Path], None], tmp_path: Path
) -> None:
    source, path = released(tmp_path)
    model = clip_vip()
    scale = model.logit_scale.item()
    read(model, path)
    for name, value in source.state_dict().items():
        if not name.endswith("logit_scale"):
            assert torch.equal(model.state_dict()[name], value), name
    # Starting weights leave the scale as the config has it.
    assert model.logit_scale.item() == (source.logit_scale.item() if read is load else scale)


def test_time_embedding_of_another_length_is_interpolated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source, path = released(tmp_path, temporal_size=2)
    model = clip_vip()
    load(model, path)
    first, last = source.state_dict()[f"{EMBEDDINGS}temporal_embedding"][0]
    expected = torch.stack([first, 0.75 * first + 0.25 * last, 0.25 * first + 0.75 * last, last])
    torch.testing.assert_close(model.state_dict()[f"{EMBEDDINGS}temporal_embedding"][0], expected)
    assert "interpolated linearly from temporal_size 2 to 4" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 8}, "patch_size is 8 in the file, 16 in the config"),
        (
            {"vision_hidden_size": 12},
            "vision_config.hidden_size is 12 in the file, 24 in the config",
        ),
        (
            {"text_hidden_size": 8},
            "text_config.hidden_size is 8 in the file, 16 in the config",
        ),
        ({"projection_dim": 6}, "projection_dim is 6 in the file, 20 in the config"),
        ({"add_cls_num": 1}, "add_cls_num is 1 in the file, 3 in the config"),
        ({"image_size": 64}, r"position_embedding.weight: (17, 24) there, (5, 24) here"),
        ({"plain": True}, "the checkpoint lacks: clipmodel.vision_model.embeddings.added_cls"),
        ({"vocab_size": 40}, "token_embedding.weight: (40, 16) there, (50, 16) here"),
    ],
)
def test_checkpoints_of_other_sizes_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = released(tmp_path, **changes)[1]
    with pytest.raises(InputError, match=f"(?s){re.escape(str(path))}: .*{re.escape(message)}"):
        load(clip_vip(), path)


@pytest.mark.parametrize(
    ("name", "new_name", "message"),
    [
        (
            "visual.ln_pre.bias",
            "visual.ln_pre.beta",
            "the model does not know: .*pre_layrnorm.beta",
        ),
        ("ln_final.weight", "ln_last.weight", "the checkpoint lacks: .*final_layer_norm.weight"),
    ],
)
def test_missing_and_unknown_tensors_are_named(
    name: str, new_name: str, message: str, tmp_path: Path
) -> None:
    state = openai_names(transformers_clip())
    state[new_name] = state.pop(name)
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(InputError, match=f"(?s)clip.pt.*{message}"):
        load_clip(clip_vip(), tmp_path / "clip.pt")


@pytest.mark.parametrize(
    "name", ["visual.proj", "visual.transformer.resblocks.0.attn.in_proj_bias", "ln_final.bias"]
)
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3, 4)])
def test_tensors_of_nonsense_shapes_are_refused(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    state = openai_names(transformers_clip()) | {name: torch.zeros(shape)}
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "clip.pt"))):
        load_clip(clip_vip(), tmp_path / "clip.pt")


@pytest.mark.parametrize("shape", [(), (1, 0, 24), (1, 2, 23), (2, 24)])
def test_time_embeddings_of_nonsense_shapes_are_refused(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = released(tmp_path)[1]
    state = torch.load(path) | {f"{EMBEDDINGS}temporal_embedding": torch.zeros(shape)}
    torch.save(state, path)
    with pytest.raises(InputError, match=r"temporal_embedding: .* \(1, 4, 24\) here"):
        load(clip_vip(), path)


def weights_of(name: str | None) -> Any:
    return SimpleNamespace(clip_weights=name)


def test_hub_names_are_local_folders_or_those_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    name = "openai/clip-vit-base-patch32"
    # Neither: the error says how to get it.
    (problem,) = missing_weights(weights_of(name))
    assert problem.startswith(f"clip_weights: there is no {name}.")
    assert "hf download" in problem
    # The cache, as Hugging Face lays it out.
    repository = tmp_path / "cache/models--openai--clip-vit-base-patch32"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123")
    clip = transformers_clip()
    clip.save_pretrained(repository / "snapshots/0123")
    assert resolve(name) == repository / "snapshots/0123"
    assert missing_weights(weights_of(name)) == []
    model = clip_vip()
    assert load_starting_weights(model, weights_of(name))
    assert torch.equal(model.clipmodel.visual_projection.weight, clip.visual_projection.weight)
    # A folder of that path goes first.
    (tmp_path / name).mkdir(parents=True)
    assert resolve(name) == Path(name)
    assert "no weights at" in missing_weights(weights_of(name))[0]


@pytest.mark.parametrize("name", [None, ""])
def test_no_starting_weights_may_be_named(name: str | None) -> None:
    assert missing_weights(weights_of(name)) == []
    assert not load_starting_weights(clip_vip(), weights_of(name))
