"""Keys of a config that the losses of CLIP-ViP cannot follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpro.configs.errors import ConfigError
from alpro.configs.loading import load_config
from alpro.tasks.retrieval.config import RetrievalConfig

NCE, HARD = "NCELearnableTempLoss", "HardNegLoss"


def load(folder: Path, **changes: Any) -> Any:
    sets = [{"name": "a", "txt": "a.jsonl", "img": "videos"}]
    values = {
        **{"family": "clip_vip", "clip_config": "config_release/clip_vit_base_patch32.json"},
        **{"train_datasets": sets, "val_datasets": sets, "output_dir": str(folder)},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(values | changes))
    return load_config(RetrievalConfig, ["--config", str(path)])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"loss_name": HARD, "hard_negative_num": 2, "mask_same_video": 1}, "mask_same_video"),
        ({"score_agg_func": "max"}, "score_agg_func"),
        ({"loss_name": HARD}, "hard_negative_num"),
        ({"loss_name": "NCEContrastiveLoss", "mask_same_video": 1}, "temp"),
    ],
)
def test_what_a_loss_cannot_do_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=rf"config\.json: .*\b{named} =") as caught:
        load(tmp_path, **changes)
    assert len(caught.value.errors) == 1


def test_nce_leaves_pairs_of_one_video_out(tmp_path: Path) -> None:
    config = load(tmp_path, loss_name=NCE, mask_same_video=1).config
    assert config.mask_same_video
