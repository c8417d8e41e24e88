"""Configs and tokenizers that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpro.configs.loading import load_config
from alpro.configs.schema import RetrievalConfig
from alpro.resources import with_resources

ROOT = Path(__file__).parents[1]


def test_paths_that_come_with_the_package_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("config_release/demo_ret.json", "ext/demo-tokenizer/", "./ext/demo-tokenizer"):
        assert Path(with_resources(path)) == ROOT / path
    for path in ("config_release/absent.json", "data/x", "/ext/demo-tokenizer", "extra"):
        assert with_resources(path) == path


def test_files_of_the_current_folder_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ext/demo-tokenizer").mkdir(parents=True)
    assert with_resources("ext/demo-tokenizer") == "ext/demo-tokenizer"


def test_shipped_configs_are_read_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", "config_release/demo_ret.json", "--output_dir", "run"]
    config = load_config(RetrievalConfig, arguments).config
    assert Path(config.tokenizer_dir) == ROOT / "ext/demo-tokenizer"
    assert config.train_datasets[0].img == "data/demo/videos"
