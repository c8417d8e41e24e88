"""Which kind of experiment a config is of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpro.configs.errors import ConfigError
from alpro.configs.loading import load_config
from alpro.tasks.registry import kind_of
from alpro.tasks.retrieval.config import RetrievalConfig

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("msrvtt_ret", "RetrievalConfig"), ("didemo_ret", "RetrievalConfig")),
        *(("msrvtt_qa", "QaConfig"), ("msvd_qa", "QaConfig"), ("demo_ret", "RetrievalConfig")),
        *(("pretrain_prompter", "PrompterConfig"), ("demo_prompter", "PrompterConfig")),
        *(("pretrain_alpro", "PretrainConfig"), ("demo_pretrain", "PretrainConfig")),
        ("clip_vip/pretrain_vip_base_32", "PostPretrainConfig"),
        ("clip_vip/msrvtt_retrieval_vip_base_16", "RetrievalConfig"),
    ],
)
def test_the_keys_of_a_config_determine_its_task(name: str, kind: str) -> None:
    raw = json.loads((ROOT / "config_release" / f"{name}.json").read_text())
    assert kind_of(raw).__name__ == kind


def test_a_stored_config_says_what_it_is_of() -> None:
    assert kind_of({"script": "src/tasks/run_video_qa.py"}).__name__ == "QaConfig"


def test_a_config_of_another_script_is_the_only_error() -> None:
    path = "config_release/demo_qa.json"
    with pytest.raises(ConfigError) as caught:
        load_config(RetrievalConfig, ["--config", path])
    script = "src/tasks/run_video_qa.py"
    assert caught.value.errors == [
        f"{path}: its keys are those of {script}. Run that, or name another config."
    ]
