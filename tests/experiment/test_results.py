from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from alpro.configs.loading import load_config
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.distributed.engine import SingleProcess
from alpro.experiment import results
from alpro.families.registry import load_family
from alpro.tasks.retrieval.config import RetrievalConfig
from tests.factories import CPU, TinyExperiment


def test_the_protocol_names_preprocessing_only_where_it_is_not_alpro_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(RetrievalConfig, TinyExperiment(tmp_path).arguments()).config

    def protocol() -> dict[str, Any]:
        return results.protocol_of(
            config,
            cast(Any, SimpleNamespace(annotations=Path("a.jsonl"), folder=Path("videos"))),
            checkpoint=Path("model.pt"),
            sha256_of=str,
            engine=SingleProcess(CPU, scale_loss=False),
        )

    before = protocol()
    assert "preprocessing" not in before
    padded = PixelPreprocessing(size=32, resize="pad")
    family = replace(load_family("alpro"), preprocessing=lambda _config: padded)
    monkeypatch.setattr(results, "load_family", lambda _name: family)
    assert protocol() == before | {"preprocessing": {"resize": "pad"}}
