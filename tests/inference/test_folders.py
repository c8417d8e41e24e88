"""Folders that models are loaded from: of runs, exported, and of transformers' CLIP."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import CLIPImageProcessor, CLIPModel

import alpro
from alpro.commands.main import main
from alpro.configs.loading import load_config
from alpro.errors import InputError
from alpro.families.clip_vip.config import CLIP_MEAN, CLIP_STD
from alpro.inference.export import export_model
from alpro.inference.model_folder import open_model
from alpro.tasks.retrieval.config import RetrievalConfig
from alpro.training.state_dicts import read_state
from tests.families.clip_vip.tiny_clip import ClipVipExperiment
from tests.families.clip_vip.tiny_clip import write_clip as write_transformers_clip


def test_a_model_folder_holds_all_that_the_model_needs(run: Path, tmp_path: Path) -> None:
    assert main(["export-model", str(run), "--output", str(tmp_path / "model")]) == 0
    folder = tmp_path / "model"
    names = {"README.md", "config.json", "model.safetensors", "vocab.txt"}
    assert {path.name for path in folder.iterdir()} >= names
    config = json.loads((folder / "config.json").read_text())
    assert config["sha256"].keys() == {path.name for path in folder.iterdir()} - {"config.json"}
    assert str(tmp_path) not in json.dumps(config["config"])
    assert "r1" in (folder / "README.md").read_text()
    # Nothing of the run is needed any more.
    before = alpro.load(run, device="cpu")
    path = tmp_path / "videos/test0.mp4"
    expected = before.encode_video(path)
    run.rename(tmp_path / "gone")
    (tmp_path / "tokenizer").rename(tmp_path / "gone_too")
    model = alpro.load(folder, device="cpu")
    assert np.array_equal(model.encode_video(path), expected)
    assert np.array_equal(model.encode_text("red"), before.encode_text("red"))
    assert model.can_match


def test_keys_of_checkpoints_take_a_model_folder(run: Path, tmp_path: Path) -> None:
    folder = export_model(run, tmp_path / "model")
    for name in ("best", "folder"):
        weights = run / "ckpt/model_step_best.pt" if name == "best" else folder
        config = ["--config", str(tmp_path / "experiment.json"), "--output_dir", str(run)]
        given = ["--inference_txt_db", str(tmp_path / "txt/test.jsonl")]
        given += ["--inference_img_db", str(tmp_path / "videos"), "--do_inference", "1"]
        assert main(["retrieval", *config, *given, "--e2e_weights_path", str(weights)]) == 0
    results = [path.read_bytes() for path in sorted(run.glob("results_test/*/results.json"))]
    assert len(results) == 2
    assert results[0] == results[1]


def test_altered_and_missing_files_are_refused(run: Path, tmp_path: Path) -> None:
    folder = export_model(run, tmp_path / "model")
    with pytest.raises(InputError, match="not empty"):
        export_model(run, folder)
    with pytest.raises(InputError, match="no such checkpoint"):
        export_model(run, tmp_path / "other", step="7")
    vocabulary = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(f"{vocabulary}more\n")
    with pytest.raises(InputError, match=r"vocab\.txt: is not the file .*SHA-256 differs"):
        alpro.load(folder)
    (folder / "vocab.txt").write_text(vocabulary)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        open_model(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither the output folder of a run"):
        alpro.load(tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        alpro.load(tmp_path / "nowhere")


def test_a_run_and_its_folder_have_one_fingerprint(run: Path, tmp_path: Path) -> None:
    export_model(run, tmp_path / "model")
    first, second = (alpro.load(path, device="cpu") for path in (run, tmp_path / "model"))
    assert first.fingerprint == second.fingerprint
    # Other weights have another one.
    state = torch.load(run / "ckpt/model_step_best.pt", weights_only=True)
    state["text_proj.bias"] += 1
    torch.save(state, run / "ckpt/model_step_best.pt")
    assert alpro.load(run, device="cpu").fingerprint != first.fingerprint


def test_altered_weights_are_refused_by_config_keys(run: Path, tmp_path: Path) -> None:
    export_model(run, tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    for read in (lambda: read_state(weights, [""]), lambda: alpro.load(weights.parent)):
        with pytest.raises(InputError, match="SHA-256 differs"):
            read()


@pytest.mark.parametrize("choice", [{"device": "tpu"}, {"precision": "int8"}, {"output": "jax"}])
def test_unknown_choices_are_refused(tmp_path: Path, choice: dict[str, Any]) -> None:
    ((key, value),) = choice.items()
    with pytest.raises(InputError, match=f"{key}='{value}': must be one of"):
        alpro.load(tmp_path, **choice)


def test_a_clip_of_transformers_is_a_model_as_it_stands(tmp_path: Path) -> None:
    folder = write_transformers_clip(tmp_path / "clip")
    model, clip = alpro.load(folder, device="cpu"), CLIPModel.from_pretrained(folder).eval()
    assert (model.family, model.num_frames, model.embed_dim) == ("clip_vip", 12, 8)
    assert model.can_embed
    assert not model.can_match
    # The mean of the frames' vectors, and the vector of a text with CLIP's own ids.
    pixels = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    chosen = np.linspace(0, 19, 12).astype(int)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
    frames = (torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2) / 255 - mean) / std
    ids = torch.tensor([[49406, 320, 736, 3240, 49407]])
    with torch.inference_mode():
        hidden = clip.vision_model(frames).pooler_output
        expected = normalize(normalize(clip.visual_projection(hidden), dim=-1).mean(0), dim=0)
        text = clip.text_projection(clip.text_model(ids).pooler_output)[0]
    assert np.allclose(model.encode_video(pixels), expected, atol=1e-5)
    words = model._network._tokenizer.decode([320, 736, 3240])  # noqa: SLF001
    assert np.allclose(model.encode_text(words), normalize(text, dim=0), atol=1e-5)
    assert alpro.load(folder, device="cpu").fingerprint == model.fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CLIP as transformers writes it."""
    return write_transformers_clip(tmp_path / "clip")


def test_a_fingerprint_is_of_tensors_and_architecture(folder: Path, tmp_path: Path) -> None:
    whole = alpro.load(folder, device="cpu").fingerprint
    CLIPModel.from_pretrained(folder).save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(folder / name, tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert alpro.load(tmp_path / "parts", device="cpu").fingerprint == whole
    config = folder / "config.json"
    config.write_text(config.read_text().replace("quick_gelu", "gelu"))
    assert alpro.load(folder, device="cpu").fingerprint != whole


def test_pixels_are_normalised_as_the_folder_says(folder: Path) -> None:
    CLIPImageProcessor(image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(folder)
    seen = alpro.load(folder, device="cpu").preprocessing
    assert (seen.mean, seen.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_folder_of_transformers_lacks_nothing(folder: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensors[name] for name in tensors if "projection" not in name}, weights)
    with pytest.raises(InputError, match=r"the checkpoint lacks: .*visual_projection\.weight"):
        alpro.load(folder, device="cpu")
    weights.unlink()
    with pytest.raises(InputError, match=r"clip: has no weights beside config\.json"):
        alpro.load(folder, device="cpu")
    save_file(tensors, weights)
    (folder / "vocab.json").unlink()
    with pytest.raises(InputError, match="vocab.json"):
        alpro.load(folder, device="cpu")


def test_weights_of_torch_save_are_found_in_a_folder(folder: Path, tmp_path: Path) -> None:
    expected = alpro.load(folder, device="cpu").encode_text("red")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert np.array_equal(alpro.load(folder, device="cpu").encode_text("red"), expected)
    # Config keys of checkpoints find them, too.
    experiment = ClipVipExperiment(tmp_path / "data", clip=folder)
    config = load_config(
        RetrievalConfig, experiment.arguments(clip_weights=None, e2e_weights_path=str(folder))
    ).config
    assert config.e2e_weights_path == str(folder / "pytorch_model.bin")
