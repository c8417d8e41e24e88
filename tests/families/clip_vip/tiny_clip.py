"""A CLIP of two narrow layers in transformers' format, and an experiment of CLIP-ViP with it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from tests.factories import TinyExperiment

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "config_release" / "clip_vip"
VOCAB_SIZE = 49408  # of ext/clip-bpe
IMAGE_SIZE = 32


def write_clip(folder: Path, *, patch_size: int = 16, **text: Any) -> Path:
    """Write configuration, random weights and vocabulary of a CLIP as transformers does."""
    tower = {
        **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2},
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config={**tower, "vocab_size": VOCAB_SIZE, "max_position_embeddings": 77, **text},
        vision_config={**tower, "image_size": IMAGE_SIZE, "patch_size": patch_size},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(ROOT / "ext" / "clip-bpe" / name, folder)
    return folder


@dataclass(kw_only=True)
class ClipVipExperiment(TinyExperiment):
    """A shipped config of retrieval with the data of a tiny experiment and a tiny CLIP."""

    clip: Path

    def __post_init__(self) -> None:
        super().__post_init__()
        clip = str(self.clip)
        shipped = json.loads((SHIPPED / "msrvtt_retrieval_vip_base_32.json").read_text())
        self.values = {
            **shipped,
            "train_datasets": self.dataset("train"),
            "val_datasets": [self.dataset("val")],
            "inference_datasets": [self.dataset("test")],
            **{"clip_config": clip, "clip_weights": clip, "e2e_weights_path": None},
            **{"input_res": [IMAGE_SIZE, IMAGE_SIZE], "train_num_frms": 2, "test_num_frms": 3},
            **{"train_batch_size": 3, "test_batch_size": 2, "num_train_epochs": 4},
            **{"learning_rate": 1e-3, "n_workers": 0, "only_valid_steps": 3, "fp16": 0},
            **{"save_steps_ratio": 0.25, "device": "cpu", "log_interval": 1},
        }

    def dataset(self, split: str) -> dict[str, str]:
        """A set under the original's keys."""
        part = super().dataset(split)
        return {"vis": part.pop("img"), "vis_format": "video", **part}

    def inference_flags(self, split: str = "test") -> list[str]:
        """Flags that name a set to evaluate."""
        part = self.dataset(split)
        given = ["--inference_txt_db", part["txt"], "--inference_img_db", part["vis"]]
        return ["--do_inference", "1", *given, "--device", "cpu"]
