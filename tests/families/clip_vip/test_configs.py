"""The ten shipped configs of CLIP-ViP, and what becomes of their keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from alpro.configs.errors import ConfigError
from alpro.configs.loading import ResolvedConfig, load_config
from alpro.configs.sources import ConfigSource
from alpro.families.clip_vip.translation import translate
from alpro.tasks.retrieval.config import RetrievalConfig
from tests.families.clip_vip.tiny_clip import ROOT, SHIPPED, ClipVipExperiment

CLIP_DATA = "clip_data/vis_db"
MSRVTT = f"{CLIP_DATA}/msrvtt_video_clips"
VIDEOS = {
    "msrvtt": ("video", f"{MSRVTT}/videos_6fps"),
    "didemo": ("video", "datasets/didemo/didemo_video_xfps/"),
    "lsmdc": ("video", "datasets/lsmdc"),
    "actnet": ("frame", "datasets/activitynet/ActivityNetVideoData2020Nov/video_frames_lr"),
}
DIDEMO, LSMDC = "datasets/lfvideo_data/task/didemo", f"{CLIP_DATA}/lsmdc"
ACTNET = f"{CLIP_DATA}/anet_retrieval"
SETS = {
    "msrvtt": (
        *(("msrvtt-9k", f"{MSRVTT}/train9k"), ("msrvtt-1ka", f"{MSRVTT}/test1ka")),
        ("msrvtt-1ka", f"{MSRVTT}/test1ka"),
    ),
    "didemo": tuple((f"didemo-{part}", f"{DIDEMO}/{part}") for part in ("train", "val", "test")),
    "lsmdc": (
        *(("lsmdc-101k", f"{LSMDC}/train_101k_frame"), ("lsmdc-1k", f"{LSMDC}/test_1k_frame")),
        ("lsmdc-1k", f"{LSMDC}/test_1k_frame"),
    ),
    "actnet": (
        *(("actnet-train", f"{ACTNET}/train"), ("actnet-test", f"{ACTNET}/val1")),
        ("actnet-test", f"{ACTNET}/val1"),
    ),
}
"""Training, validation and inference: name and annotation file without ``.jsonl``."""
# Frames, length of texts, batch, epochs, and lr_mul with lr_mul_prefix.
RETRIEVAL: dict[tuple[str, int], tuple[int, int, int, int, float, str]] = {
    **{("msrvtt", size): (12, 50, 16, 100, 1, "") for size in (32, 16)},
    ("didemo", 32): (12, 50, 16, 20, 1, ""),
    ("didemo", 16): (12, 70, 16, 20, 10, "logit_scale"),
    **{("lsmdc", size): (12, 50, 16, 10, 1, "") for size in (32, 16)},
    ("actnet", 32): (32, 70, 16, 20, 1, ""),
    ("actnet", 16): (32, 70, 8, 20, 1, ""),
}
COMMON = {
    **{"train_n_clips": 1, "test_n_clips": 1, "sample_rate": 0, "sample_jitter": 1},
    **{"video_res": [240, 320], "input_res": [224, 224], "max_n_example_per_group": 1},
    "clip_vision_additional_config": {
        **{"type": "ViP", "temporal_size": 12, "if_use_temporal_embed": 1},
        **{"logit_scale_init_value": 4.60, "add_cls_num": 3},
    },
    **{"gradient_accumulation_steps": 1, "n_workers": 8, "pin_mem": 1, "fp16": 1},
    **{"amp_level": "O2", "seed": 42, "optim": "adamw", "betas": [0.9, 0.98]},
    **{"warmup_ratio": 0.01, "decay": "cosine", "min_valid_steps": 1, "if_model_saver": 1},
    **{"if_log2file": 1, "dummy_data": 0},
}
OF_PRETRAINING = {
    **{"e2e_weights_path": None, "learning_rate": 5e-6, "weight_decay": 0.05, "grad_norm": 5.0},
    "loss_config": {"loss_name": "NCELearnableTempLoss_vsc_fc", "if_gather": 1},
    **{"num_valid": 100, "only_valid_steps": 1000, "save_steps_ratio": 0.01, "if_tb_log": 1},
    **{"lr_mul": 1, "lr_mul_prefix": "", "max_txt_len": 70, "num_train_epochs": 5},
}
OF_RETRIEVAL = {
    **{"learning_rate": 1e-6, "weight_decay": 0.2, "grad_norm": 1.0},
    "loss_config": {"loss_name": "NCELearnableTempLoss", "if_gather": 1},
    **{"num_valid": 1, "only_valid_steps": 100, "save_steps_ratio": 0.9, "if_tb_log": 0},
}
YTT = "youtube_data/ytt180m/video_clips_3fps"


def sized(size: int, *, frames: int, batch: int) -> dict[str, Any]:
    """Keys that follow from patch size, frames and batch size."""
    clip = f"openai/clip-vit-base-patch{size}"
    return {
        **{"clip_config": clip, "clip_weights": clip},
        **{"train_num_frms": frames, "test_num_frms": frames},
        **{"train_batch_size": batch, "test_batch_size": batch},
    }


def retrieval(name: str, size: int) -> dict[str, Any]:
    """A config of retrieval, by appendix A of the specification."""
    frames, length, batch, epochs, factor, prefix = RETRIEVAL[name, size]
    kind, videos = VIDEOS[name]
    train, val, test = (
        {"name": title, "vis_format": kind, "txt": f"{path}.jsonl", "vis": videos}
        for title, path in SETS[name]
    )
    group = f"{name}_retrieval"
    return {
        **COMMON,
        **OF_RETRIEVAL,
        **sized(size, frames=frames, batch=batch),
        "e2e_weights_path": f"path/to/CLIP-ViP-B/{size}/checkpoint",
        **{"max_txt_len": length, "num_train_epochs": epochs},
        **{"lr_mul": factor, "lr_mul_prefix": prefix},
        "output_dir": f"vidclip_data/output/{group}/{group}_vip_base_{size}",
        **{"train_datasets": train, "val_datasets": [val], "inference_datasets": [test]},
    }


def pretraining(size: int, batch: int) -> dict[str, Any]:
    """A config of pretraining, by the same appendix."""
    train = {
        **{"name": "hdvila", "vis_format": "videoframe", "vis": YTT, "vid_txt": "subtitle"},
        "txt": "datasets/hdvila/hdvila_subtitles_92m_db",
        "vid_cap_path": "datasets/hdvila/hdvila_captions_db",
        **{"img_dir": "", "cap_path": "", "img_source": "", "img_ratio": 0},
    }
    val = (
        ("msrvtt", f"{MSRVTT}/test1ka.jsonl", f"{MSRVTT}/videos_6fps"),
        ("how2", f"{CLIP_DATA}/pretrain_data/test_howto_1k.jsonl", YTT),
        ("ours", f"{CLIP_DATA}/pretrain_data/test_full_1k.jsonl", YTT),
    )
    sets = [{"name": n, "vis_format": "video", "txt": txt, "vis": vis} for n, txt, vis in val]
    return {
        **{**COMMON, **OF_PRETRAINING, **sized(size, frames=12, batch=batch)},
        "output_dir": f"vidclip_data/output/pretrain/pretrain_vip_base_{size}/",
        **{"train_datasets": [train], "val_datasets": sets},
    }


TABLE = {
    **{f"{name}_retrieval_vip_base_{size}": retrieval(name, size) for name, size in RETRIEVAL},
    **{f"pretrain_vip_base_{s}": pretraining(s, batch) for s, batch in ((32, 32), (16, 16))},
}


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def resolve(*arguments: str) -> ResolvedConfig[Any]:
    return load_config(RetrievalConfig, arguments)


def shipped(name: str, *flags: str) -> ResolvedConfig[Any]:
    return resolve("--config", f"config_release/clip_vip/{name}_retrieval_vip_base_16.json", *flags)


def errors_of(experiment: ClipVipExperiment, *flags: str, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(*experiment.arguments(*flags, **changes))
    return "\n".join(caught.value.errors)


def test_the_shipped_files_are_those_of_the_original() -> None:
    files = {path.stem: json.loads(path.read_text()) for path in SHIPPED.glob("*.json")}
    assert files == TABLE


@pytest.mark.parametrize(("name", "size"), RETRIEVAL)
def test_files_of_retrieval_load_unchanged(name: str, size: int) -> None:
    path = f"config_release/clip_vip/{name}_retrieval_vip_base_{size}.json"
    resolved = resolve("--config", path)
    config, values = resolved.config, TABLE[Path(path).stem]
    assert config.family == "clip_vip"
    frames, *_, factor, prefix = RETRIEVAL[name, size]
    assert (config.num_frm, config.num_evaluated_frames, config.crop_img_size) == (
        *(frames, frames, 224),
    )
    assert (config.val_batch_size, config.inference_n_clips) == (config.train_batch_size, 1)
    assert (config.lr_mul, config.lr_mul_prefix or "") == (factor, prefix)
    assert (config.optim, config.frm_sampling_strategy) == ("adamw_decay_last", "linspace_jitter")
    assert (config.use_itc, config.use_itm, config.loss_name) == (
        *(True, False, "NCELearnableTempLoss"),
    )
    assert config.text_lists == ("paragraph" if name == "didemo" else "draw")
    assert config.only_valid_steps == 100
    for key, ours in (
        ("train_datasets", "train_datasets"),
        ("inference_datasets", "test_datasets"),
    ):
        (there,) = values[key] if isinstance(values[key], list) else [values[key]]
        (here,) = getattr(config, ours)
        assert (here.txt, here.img) == (there["txt"], there["vis"])
    clip = resolved.architecture["clip_config"]
    assert (clip.patch_size, clip.vision_hidden_size, clip.text_hidden_size) == (size, 768, 512)
    assert "path/to/CLIP-ViP-B" in config.e2e_weights_path
    *notes, ignored = resolved.warnings
    inert = "amp_level, dummy_data, if_log2file, if_model_saver, if_tb_log, video_res"
    assert ignored == f"keys without effect: {inert} ({path})"
    assert [note.startswith("text_lists is paragraph") for note in notes] == [True] * (
        name == "didemo"
    )


def test_originals_keys_are_flags() -> None:
    config = shipped(
        "msrvtt",
        *("--train_num_frms", "8", "--loss_config.loss_name", "HardNegLoss"),
        *("--loss_config.hard_negative_num", "4", "--sample_rate", "2"),
        *("--clip_vision_additional_config.temporal_size", "8"),
        *("--clip_config", "openai/clip-vit-base-patch32"),
    ).config
    assert (config.num_frm, config.test_num_frm, config.temporal_size) == (8, 12, 8)
    assert (config.loss_name, config.hard_negative_num) == ("HardNegLoss", 4)
    assert (config.frm_sampling_strategy, config.sample_rate) == ("interval", 2)
    assert config.clip_config == "config_release/clip_vit_base_patch32.json"
    assert shipped("msrvtt", "--sample_jitter", "0").config.frm_sampling_strategy == "linspace"
    pairs = shipped("didemo", "--text_lists", "pairs")
    assert pairs.config.text_lists == "pairs"
    assert not [note for note in pairs.warnings if "text_lists" in note]
    parts = ("--train_datasets.0.vis", "a", "--inference_datasets.0.txt", "b.jsonl")
    config = shipped("msrvtt", *parts).config
    assert (config.train_datasets[0].img, config.test_datasets[0].txt) == ("a", "b.jsonl")


def test_relative_paths_lie_below_the_mounted_folder() -> None:
    given = ("--blob_mount_dir", "/blob", "--val_datasets.0.txt", "/elsewhere/val.jsonl")
    config = shipped("didemo", *given).config
    assert config.output_dir == "/blob/" + TABLE["didemo_retrieval_vip_base_16"]["output_dir"]
    assert config.e2e_weights_path == "/blob/path/to/CLIP-ViP-B/16/checkpoint"
    assert config.train_datasets[0].txt == f"/blob/{DIDEMO}/train.jsonl"
    assert config.val_datasets[0].txt == "/elsewhere/val.jsonl"
    assert config.test_datasets[0].img == "/blob/datasets/didemo/didemo_video_xfps"
    assert (config.blob_mount_dir, config.clip_weights) == (None, "openai/clip-vit-base-patch16")


def test_a_folder_of_clip_gives_architecture_and_vocabulary(experiment: ClipVipExperiment) -> None:
    resolved = resolve(*experiment.arguments())
    clip = resolved.architecture["clip_config"]
    assert (clip.vision_hidden_size, clip.text_num_hidden_layers, clip.projection_dim) == (16, 2, 8)
    assert (clip.image_size, clip.patch_size, clip.vocab_size) == (32, 16, 49408)
    folder = experiment.clip
    assert resolved.config.clip_config == str(folder / "config.json")
    assert resolved.config.tokenizer_dir == str(folder)


def test_other_visual_models_are_plain_clip(experiment: ClipVipExperiment) -> None:
    resolved = resolve(*experiment.arguments(clip_vision_additional_config={"type": "CLIP"}))
    assert resolved.config.vision_type == "plain"
    assert "CLIP of each frame, and the mean" in resolved.warnings[0]


def test_keys_that_freeze_the_text_tower_become_patterns(experiment: ClipVipExperiment) -> None:
    config = resolve(*experiment.arguments(freeze_text_model=1, freeze_text_proj=0)).config
    assert config.freeze == ["clipmodel.text_model.*"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss_config": {"loss_name": "NCELearnableTmpLoss", "if_gather": 1}},
            'loss_config.loss_name is "NCELearnableTmpLoss"; expected one of .* '
            "Did you mean NCELearnableTempLoss?",
        ),
        (
            {"loss_config": {"loss_name": "NCEContrastiveLoss"}},
            'loss_name = "NCEContrastiveLoss" and temp = null .*: this loss needs temp',
        ),
        ({"loss_config": {"if_gather": 0}}, "loss_config.if_gather = false: the losses compare"),
        ({"loss_config": {"tempp": 1}}, r"unknown key \"loss_config.tempp\""),
        (
            {"clip_vision_additional_config": {"temporal_size": 0}},
            "clip_vision_additional_config.temporal_size is 0; expected a whole number",
        ),
        ({"input_res": [64, 64]}, r"input_res = 64 and image_size = 32 .*: CLIP's position"),
        ({"input_res": [64, 32]}, r"input_res is \[64, 32\]; expected a whole number"),
        ({"max_txt_len": 78}, "no position embedding beyond its last one"),
        ({"train_num_frms": "12"}, 'train_num_frms is "12"'),
        ({"inference_datasets": [{"name": "a", "txt": 3, "vis": "b"}]}, "inference_datasets.0.txt"),
        ({"val_datasets": [{"name": "a", "txt": "b", "vis": 3}]}, "val_datasets.0.vis is 3"),
        ({"lr_mul": 10}, "lr_mul_prefix = null and lr_mul = 10.0: no parameter"),
        ({"clip_config": "openai/clip-vit-large"}, "no such file or folder|there is no such file"),
    ],
)
def test_errors_name_the_keys_of_the_file(
    experiment: ClipVipExperiment, changes: dict[str, Any], message: str
) -> None:
    errors = errors_of(experiment, **changes)
    assert re.search(message, errors, flags=re.IGNORECASE), errors


def test_a_null_of_freeze_does_not_hinder_its_patterns() -> None:
    layer = ConfigSource("file", "file", {"freeze": None, "freeze_text_model": 1})
    translate([layer])
    assert layer.values == {"freeze": ["clipmodel.text_model.*"]}


def test_a_folder_of_clip_leaves_a_named_tokenizer(tmp_path: Path) -> None:
    for name in ("config.json", "vocab.json"):
        (tmp_path / name).write_text("{}")
    named = ConfigSource("file", "file", {"tokenizer_dir": "mine"})
    flags = ConfigSource("flag", "command line", {"clip_config": str(tmp_path)})
    translate([named, flags])
    assert flags.values == {"clip_config": str(tmp_path / "config.json")}
