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


def load(folder: Path, *flags: str, **changes: Any) -> Any:
    sets = [{"name": "a", "txt": "a.jsonl", "img": "videos"}]
    values = {
        **{"family": "clip_vip", "clip_config": "config_release/clip_vit_base_patch32.json"},
        **{"train_datasets": sets, "val_datasets": sets, "output_dir": str(folder)},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(values | changes))
    return load_config(RetrievalConfig, ["--config", str(path), *flags])


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


def test_keys_that_the_loss_does_not_take_are_noticed(tmp_path: Path) -> None:
    config = load(tmp_path, loss_config={"loss_name": "NCEContrastiveLoss", "temp": 1}).config
    assert config.notices(infers=False, stored=()) == []
    config = load(tmp_path, loss_config={"loss_name": NCE, "temp": 0.05}).config
    expected = [f"temp has no effect: {NCE} takes no further key"]
    assert config.notices(infers=False, stored=()) == expected


def test_a_key_in_its_own_place_wins_over_one_in_an_object(tmp_path: Path) -> None:
    loss = {"loss_name": HARD, "hard_negative_num": 2}
    assert load(tmp_path, loss_config=loss, hard_negative_num=4).config.hard_negative_num == 4


def test_flags_of_the_sampling_win_over_the_strategy_of_the_file(tmp_path: Path) -> None:
    file = {"frm_sampling_strategy": "segment", "sample_jitter": 0}
    assert load(tmp_path, **file).config.frm_sampling_strategy == "segment"
    jittered = load(tmp_path, "--sample_jitter", "1", **file).config
    assert jittered.frm_sampling_strategy == "linspace_jitter"
