"""The original's experiment and model files, as shipped."""

import json
from pathlib import Path
from typing import Any

import pytest

from alpro.configs.downstream import annotation_file
from alpro.configs.loading import load_config
from alpro.tasks.pretraining.config import PostPretrainConfig, PretrainConfig, PrompterConfig
from alpro.tasks.pretraining.options import media_of, pretraining_file
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config_release"
EXPERIMENTS = (
    *("pretrain_prompter", "pretrain_alpro", "msrvtt_ret", "didemo_ret", "msrvtt_qa", "msvd_qa"),
)


def content(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "msrvtt_ret",
            {
                **{"max_txt_len": 40, "train_batch_size": 8, "num_train_epochs": 5},
                **{"learning_rate": 2.5e-5, "grad_norm": 5.0, "min_valid_steps": 100},
            },
        ),
        (
            "didemo_ret",
            {
                **{"max_txt_len": 50, "train_batch_size": 12, "num_train_epochs": 10},
                **{"learning_rate": 4e-5, "grad_norm": 20.0, "min_valid_steps": 20},
            },
        ),
    ],
)
def test_retrieval_files_load_with_only_the_known_warnings(
    name: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = f"config_release/{name}.json"
    resolved = load_config(RetrievalConfig, ["--config", path, "--output_dir", "out"])
    for key, value in expected.items():
        assert getattr(resolved.config, key) == value
    assert (resolved.config.num_frm, resolved.config.weight_decay) == (8, 1e-3)
    assert resolved.warnings == [f"keys without effect: dropout, resize_size ({path})"]
    video, text = (resolved.architecture[key] for key in ("visual_model_cfg", "model_config"))
    assert (video.patch_size, video.drop_path_rate) == (16, 0.1)
    assert (text.fusion_layer, text.vocab_size) == (6, 30522)


@pytest.mark.parametrize(
    ("name", "expected", "ignored"),
    [
        ("msrvtt_qa", {"num_train_epochs": 10, "num_valid": 50, "grad_norm": 5.0}, ""),
        ("msvd_qa", {"num_train_epochs": 15, "num_valid": 30, "grad_norm": 20.0}, "num_labels, "),
    ],
)
def test_qa_files_load_with_only_the_known_warnings(
    name: str, expected: dict[str, Any], ignored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = f"config_release/{name}.json"
    resolved = load_config(QaConfig, ["--config", path, "--output_dir", "out"])
    config = resolved.config
    for key, value in expected.items():
        assert getattr(config, key) == value
    assert (config.num_frm, config.max_txt_len, config.learning_rate) == (16, 40, 5e-5)
    assert (config.task, config.augmentation) == (name, "randaugment")
    assert config.ans2label_path == f"data/{name}/txt/train_ans2label.json"
    for part, split in ((config.train_datasets[0], "train"), (config.val_datasets[0], "val")):
        assert annotation_file(part, config.task) == f"data/{name}/txt/{split}.jsonl"
    keys = f"classifier, cls_hidden_scale, cnn_lr_decay, dropout, {ignored}resize_size"
    assert resolved.warnings == [f"keys without effect: {keys} ({path})"]
    assert resolved.architecture["visual_model_cfg"].gradient_checkpointing is True


@pytest.mark.parametrize(
    ("name", "config_class", "expected", "ignored"),
    [
        (
            *("pretrain_prompter", PrompterConfig),
            {
                **{"use_itm": False, "use_mlm": False, "use_mpm": False, "min_valid_steps": 100},
                **{"gradient_accumulation_steps": 2, "save_steps_ratio": 0.05},
            },
            "dropout",
        ),
        (
            *("pretrain_alpro", PretrainConfig),
            {
                **{"use_itm": True, "use_mlm": True, "use_mpm": True, "min_valid_steps": 10},
                **{"gradient_accumulation_steps": 1, "save_steps_ratio": 0.01},
                **{"entity_file_path": "data/unigrams.txt", "mlm_probability": 0.15},
                "teacher_weights_path": "output/pretrain/prompter_pretrained.pt",
                "entity_threshold": 0.2,
            },
            "dropout, fps",
        ),
    ],
)
def test_pretraining_files_load_with_only_the_known_warnings(
    name: str,
    config_class: Any,
    expected: dict[str, Any],
    ignored: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    path = f"config_release/{name}.json"
    resolved = load_config(config_class, ["--config", path, "--output_dir", "out"])
    config = resolved.config
    for key, value in expected.items():
        assert getattr(config, key) == value
    assert (config.num_frm, config.max_txt_len, config.frm_sampling_strategy) == (4, 30, "headtail")
    assert (config.crop_img_size, config.resize_size) == (224, 256)
    assert (config.num_entities, config.augmentation) == (1000, "randaugment")
    assert (config.use_itc, config.weight_decay, config.visual_weights_path) == (
        *(True, 1e-3, "vit_base_patch16_224"),
    )
    videos, images = config.train_datasets
    assert (media_of(videos), media_of(images)) == ("video", "image")
    assert pretraining_file(videos) == "data/webvid2m/txt/train.pkl"
    assert pretraining_file(images) == "data/cc3m/txt/cc3m.json"
    assert (videos.img, images.img) == ("data/webvid2m/videos", None)
    assert videos.weight == images.weight
    assert [pretraining_file(part) for part in config.val_datasets] == ["data/webvid2m/txt/val.pkl"]
    assert resolved.warnings == [f"keys without effect: {ignored} ({path})"]


@pytest.mark.parametrize(
    ("name", "config_class"),
    [
        ("demo_prompter", PrompterConfig),
        ("demo_pretrain", PretrainConfig),
        ("demo_ret", RetrievalConfig),
        ("demo_qa", QaConfig),
        ("demo_clipvip_pretrain", PostPretrainConfig),
        ("demo_clipvip_ret", RetrievalConfig),
        ("own_prompter", PrompterConfig),
        ("own_pretrain", PretrainConfig),
    ],
)
def test_files_of_the_demo_and_for_own_data_load_without_warnings(
    name: str, config_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = f"config_release/{name}.json"
    assert load_config(config_class, ["--config", path, "--output_dir", "out"]).warnings == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_name_model_files_that_are_shipped(name: str) -> None:
    values = content(name)
    assert (ROOT / values["model_config"]).is_file()
    assert (ROOT / values["visual_model_cfg"]).is_file()


@pytest.mark.parametrize(
    ("name", "global_batch", "processes"),
    [
        ("pretrain_prompter", 256, 8),
        ("pretrain_alpro", 256, 16),
        ("msrvtt_ret", 64, 8),
        ("didemo_ret", 96, 8),
        ("msrvtt_qa", 192, 8),
        ("msvd_qa", 192, 8),
    ],
)
def test_global_batch_sizes(name: str, global_batch: int, processes: int) -> None:
    values = content(name)
    per_update = values["train_batch_size"] * values["gradient_accumulation_steps"]
    assert per_update * processes == global_batch


def test_checkpointing_is_the_only_difference_between_the_video_encoder_files() -> None:
    plain = content("timesformer_divst_8x32_224_k600")
    checkpointed = content("timesformer_divst_8x32_224_k600_gc")
    assert {key for key in plain if plain[key] != checkpointed[key]} == {"gradient_checkpointing"}
    assert checkpointed["gradient_checkpointing"] is True
    assert plain.keys() == checkpointed.keys()
