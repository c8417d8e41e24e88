"""Precedence, flags, sources and what is stored."""

import json
from typing import Any

import pytest

from alpro.configs.downstream import DownstreamDataset


def test_defaults_are_the_originals(load: Any) -> None:
    config = load().config
    assert (config.num_frm, config.max_txt_len, config.frm_sampling_strategy) == (3, 20, "rand")
    assert (config.learning_rate, config.betas, config.grad_norm) == (5e-5, (0.9, 0.98), 2.0)
    assert (config.num_train_epochs, config.warmup_ratio, config.decay) == (10, 0.1, "linear")
    assert (config.train_batch_size, config.eval_retrieval_batch_size) == (128, 256)
    assert (config.accumulation, config.retrieval_top_k) == ("sum", 0)
    assert (config.augmentation, config.inference_n_clips) == ("none", 1)


def test_a_flag_beats_the_file_and_the_file_beats_the_default(load: Any) -> None:
    resolved = load({"num_frm": 8, "seed": 1}, "--num_frm", "16")
    config = resolved.config
    assert (config.num_frm, config.seed, config.max_txt_len) == (16, 1, 20)
    assert resolved.sources["num_frm"] == "flag"
    assert resolved.sources["seed"].endswith("experiment.json")
    assert resolved.sources["max_txt_len"] == "default"


@pytest.mark.parametrize(
    ("flags", "key", "expected"),
    [
        (["--learning_rate", "1e-3"], "learning_rate", 1e-3),
        (["--learning_rate=1e-3"], "learning_rate", 1e-3),
        (["--grad_norm", "-1"], "grad_norm", -1.0),
        (["--betas", "0.8", "0.9"], "betas", (0.8, 0.9)),
        (["--step_decay_epochs", "3", "5"], "step_decay_epochs", [3, 5]),
        (["--freeze", "visual_encoder.*", "temp"], "freeze", ["visual_encoder.*", "temp"]),
        (["--freeze"], "freeze", []),
        (["--mask_same_video", "true"], "mask_same_video", True),
        (["--use_itm", "0"], "use_itm", False),
        (["--itm_negatives", "global"], "itm_negatives", "global"),
        (["--itm_negatives", "all_ranks"], "itm_negatives", "global"),  # its former name
        (["--shuffle_block", "2"], "shuffle_block_size", 2),
        ([], "itm_negatives", "local"),
        ([], "grad_cache_size", 0),
        (["--e2e_weights_path", "null"], "e2e_weights_path", None),
        (["--seed", "1", "--seed", "2"], "seed", 2),
        (["--num_workers", "0"], "n_workers", 0),
    ],
)
def test_flags_take_the_type_of_their_key(
    load: Any, flags: list[str], key: str, expected: Any
) -> None:
    assert getattr(load({}, *flags).config, key) == expected


def test_parts_of_datasets_are_flags(load: Any) -> None:
    resolved = load(
        {},
        *("--train_datasets.0.img", "elsewhere"),
        *("--train_datasets.1.name", "more", "--train_datasets.1.img", "dir"),
        *("--train_datasets.1.txt", "more.csv"),
    )
    assert resolved.config.train_datasets == [
        DownstreamDataset(name="pets", txt="pets/train.jsonl", img="elsewhere"),
        DownstreamDataset(name="more", txt="more.csv", img="dir"),
    ]
    assert resolved.sources["train_datasets.0.img"] == "flag"
    assert resolved.sources["train_datasets.0.txt"].endswith("experiment.json")
    assert resolved.sources["train_datasets.0.ann"] == "default"


def test_several_clips_are_read_at_inference(load: Any) -> None:
    config = load({"inference_n_clips": 3}, "--score_agg_func", "lse").config
    assert (config.inference_n_clips, config.score_agg_func) == (3, "lse")


def test_the_original_keys_without_effect_give_one_warning(load: Any) -> None:
    assert load().warnings == []
    resolved = load({"dropout": 0.1, "resize_size": 256, "num_train_steps": 5}, "--fps", "1")
    (warning,) = resolved.warnings
    for key in ("dropout", "resize_size", "num_train_steps", "fps"):
        assert key in warning


def test_num_workers_is_an_alias_that_yields_to_the_proper_name(load: Any) -> None:
    resolved = load({"num_workers": 7})
    assert resolved.config.n_workers == 7
    assert resolved.sources["n_workers"].endswith("experiment.json (as num_workers)")
    assert load({"num_workers": 7, "n_workers": 2}).config.n_workers == 2
    assert load({"n_workers": 2}, "--num_workers", "5").config.n_workers == 5


@pytest.mark.parametrize(
    ("in_file", "flags", "expected"),
    [
        ({}, [], "fp32"),
        ({"fp16": 0}, [], "fp32"),
        ({"fp16": 1}, [], "fp16"),
        ({"precision": "bf16"}, [], "bf16"),
        ({"fp16": 0, "precision": "bf16"}, [], "bf16"),
        ({"fp16": 1}, ["--precision", "bf16"], "bf16"),
        ({"precision": "bf16"}, ["--fp16", "1"], "fp16"),
        ({"precision": "bf16"}, ["--fp16", "0"], "bf16"),
        ({"precision": "fp16"}, ["--fp16", "0"], "fp32"),
    ],
)
def test_precision_and_fp16_agree(
    load: Any, in_file: dict[str, Any], flags: list[str], expected: str
) -> None:
    config = load(in_file, *flags).config
    assert config.precision == expected
    assert config.fp16 is (expected == "fp16")


def test_model_files_are_read(load: Any, write: Any) -> None:
    write("video.json", {"patch_size": 32, "embed_dim": 128, "num_heads": 4, "drop_rate": 0})
    write("text.json", {"hidden_size": 128, "num_attention_heads": 2, "use_cache": True})
    resolved = load()
    video = resolved.architecture["visual_model_cfg"]
    assert (video.patch_size, video.depth) == (32, 12)
    assert resolved.architecture["model_config"].hidden_size == 128
    assert "use_cache" in resolved.warnings[0]


def test_the_stored_config_loads_again_to_the_same_config(load: Any) -> None:
    resolved = load({"step_decay_epochs": [2], "freeze": ["temp"]}, "--precision", "bf16")
    stored = json.loads(json.dumps(resolved.to_json()))
    assert stored["betas"] == [0.9, 0.98]
    assert stored["train_datasets"][0]["img"] == "pets/videos"
    load.experiment = {**stored, "n_gpu": 8, "valid_steps": 100}
    assert load().config == resolved.config


@pytest.mark.parametrize(
    "changes",
    [
        {"train_n_clips": 8},
        {"train_n_clips": 8, "frm_sampling_strategy": "segment"},
        {"train_n_clips": 8, "frm_sampling_strategy": "middle", "random_sample_clips": 0},
        {"train_n_clips": 1, "frm_sampling_strategy": "middle"},
    ],
)
def test_clips_of_a_training_video_may_be_several_if_they_differ(
    load: Any, changes: dict[str, Any]
) -> None:
    assert load(changes).config.train_n_clips == changes["train_n_clips"]
