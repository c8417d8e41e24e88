"""Parts of pretraining tests: captioned images, entities, models, tasks, an experiment."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from alpro.configs.loading import ResolvedConfig, load_config
from alpro.datasets.tokenization import Tokenizer
from alpro.datasets.transforms.normalize import Normalize
from alpro.datasets.video_datasets import TrainingSample
from alpro.distributed.engine import Engine, SingleProcess
from alpro.evaluation.evaluation_set import silent_progress
from alpro.families.alpro.pretraining_model import AlproForPretraining, Prompter
from alpro.families.alpro.pretraining_objective import Objectives, PretrainingObjective
from alpro.families.alpro.prompter_pretraining import PrompterObjective
from alpro.file_kinds import Media
from alpro.modeling.bert import SplitBert
from alpro.tasks.pretraining.annotations import CaptionedItem
from alpro.tasks.pretraining.batches import PretrainBatch, PretrainCollate
from alpro.tasks.pretraining.config import PretrainConfig
from tests.factories import (
    CPU,
    EMBED_DIM,
    IMAGE_SIZE,
    MEAN,
    NUM_FRAMES,
    PATCH_SIZE,
    STD,
    TinyExperiment,
    caption_of,
    make_encoders,
    spread_weights,
)

ENTITIES = ("ball", "box", "red", "green", "blue")
LOSSES = ("itc", "itm", "mlm", "mpm")
SEED = 3
T = TypeVar("T")


def given(value: T | None) -> T:
    """A part of a batch or of a model that must not be None."""
    assert value is not None
    return value


def make_prompter(
    *, seed: int = 1, spread: float = 0.2, num_entities: int = len(ENTITIES), dropout: float = 0.0
) -> Prompter:
    """A tiny prompter whose prompts are noise, so weak that it is sure of nothing."""
    torch.manual_seed(seed)
    encoders = make_encoders(SplitBert, spread=spread, dropout=dropout, num_frames=NUM_FRAMES)
    prompter = Prompter(*encoders, num_entities=num_entities, embed_dim=EMBED_DIM)
    for prompts in (prompter.video_prompt_feat, prompter.image_prompt_feat):
        torch.nn.init.normal_(prompts, std=0.05)
    return spread_weights(prompter, spread=spread)


def make_pretraining_model(
    *,
    seed: int = 0,
    spread: float = 0.2,
    num_entities: int | None = len(ENTITIES),
    dropout: float = 0.0,
) -> AlproForPretraining:
    """A tiny model; without a prompter if there are no entities."""
    prompter = None
    if num_entities is not None:
        prompter = make_prompter(num_entities=num_entities, dropout=dropout)
    torch.manual_seed(seed)
    flavour = partial(SplitBert, train_mlm_head=True)
    encoders = make_encoders(flavour, spread=spread, dropout=dropout, num_frames=NUM_FRAMES)
    model = AlproForPretraining(*encoders, prompter=prompter, embed_dim=EMBED_DIM)
    return spread_weights(model, spread=spread)


def make_pairs(
    tokenizer: Tokenizer,
    video_ids: Sequence[str],
    *,
    media: Media = "video",
    num_frames: int = NUM_FRAMES,
    mlm_probability: float | None = 0.4,
    with_regions: bool = True,
) -> PretrainBatch:
    """A batch of captions with noise; the frames of an image are alike."""
    samples = []
    for index, video_id in enumerate(video_ids):
        shape = (1, num_frames, 3, IMAGE_SIZE, IMAGE_SIZE)
        frames = np.random.default_rng(sum(map(ord, video_id))).integers(0, 256, shape, np.uint8)
        if media == "image":
            frames[:] = frames[:, :1]
        item = CaptionedItem(video_id, (caption_of(index),), media)
        samples.append(TrainingSample(frames, item, key=(0, index)))
    collate = PretrainCollate(
        tokenizer,
        max_length=20,
        mlm_probability=mlm_probability,
        patches=(IMAGE_SIZE // PATCH_SIZE, PATCH_SIZE) if with_regions else None,
        seed=SEED,
    )
    return collate(samples)


def make_pretraining_task(
    model: AlproForPretraining, *losses: str, engine: Engine | None = None, **changes: Any
) -> PretrainingObjective:
    """The task with some losses, all if none is named, in its first update.

    ``changes`` are further arguments of its class.
    """
    chosen = losses or LOSSES
    arguments: dict[str, Any] = {
        **{"itm_start_step": 1, "mask_same_video": False, "entity_threshold": 0.0},
        **{"precision": "fp32", "allow_missing_videos": False, "progress": silent_progress},
        **changes,
    }
    task = PretrainingObjective(
        model,
        engine=engine or SingleProcess(CPU, scale_loss=False),
        normalize=Normalize(MEAN, STD),
        objectives=Objectives(**{name: name in chosen for name in LOSSES}),
        **arguments,
    )
    task.on_update_start(1)
    return task.train()


def make_prompter_task(
    model: Prompter, *, engine: Engine | None = None, **changes: Any
) -> PrompterObjective:
    """The task of the first stage; ``changes`` are further arguments of its class."""
    arguments: dict[str, Any] = {
        **{"mask_same_video": False, "precision": "fp32", "allow_missing_videos": False},
        **{"progress": silent_progress, **changes},
    }
    engine = engine or SingleProcess(CPU, scale_loss=False)
    return PrompterObjective(
        model, engine=engine, normalize=Normalize(MEAN, STD), **arguments
    ).train()


@dataclass
class PretrainExperiment(TinyExperiment):
    """A complete pretraining experiment: videos and images with captions, entities, a prompter.

    The videos come in the file formats of both training and validation sets; every second image
    has two captions.
    """

    num_test: int = 0
    num_train_images: int = 4
    num_val_images: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        del self.values["test_datasets"]
        self._write_table()
        for split in ("train", "val"):
            self._write_images(split, getattr(self, f"num_{split}_images"))
        entities = [f"{entity} {100 - count}\n" for count, entity in enumerate(ENTITIES)]
        (self.root / "entities.txt").write_text("".join(entities))
        torch.save(make_prompter(num_entities=9).state_dict(), self.teacher)  # of other entities
        self.values |= {
            "train_datasets": [self.dataset("train"), self.images("train")],
            "val_datasets": [self.dataset("val"), self.images("val")],
            **{"resize_size": IMAGE_SIZE + 8, "num_entities": len(ENTITIES)},
            **{"mlm_probability": 0.4, "entity_threshold": 0.1, "val_batch_size": 2},
            "entity_file_path": str(self.root / "entities.txt"),
            "teacher_weights_path": str(self.teacher),
            **{f"use_{name}": 1 for name in LOSSES},
        }

    @property
    def teacher(self) -> Path:
        """The checkpoint of a prompter."""
        return self.root / "prompter.pt"

    def dataset(self, split: str) -> dict[str, Any]:
        """Captioned videos: a CSV table to train on, JSON lines to validate on."""
        ending = "csv" if split == "train" else "jsonl"
        return {
            "name": f"tiny {split}",
            "ann": str(self.root / "txt" / f"{split}.{ending}"),
            "img": str(self.root / "videos"),
        }

    def images(self, split: str) -> dict[str, Any]:
        """Captioned images."""
        return {
            "name": f"tiny {split} images",
            "ann": str(self.root / "txt" / f"{split}_images.json"),
            "img": str(self.root / "images"),
        }

    def pretraining(self, *flags: str, output: str = "run", **changes: Any) -> list[str]:
        """Command line of a run with all four losses."""
        return self.arguments(*flags, output=output, **changes)

    def prompting(self, *flags: str, output: str = "prompter", **changes: Any) -> list[str]:
        """Command line of a run that trains a prompter."""
        unused = {f"use_{name}": int(name == "itc") for name in LOSSES}
        unread = {"entity_file_path", "teacher_weights_path", "mlm_probability", "entity_threshold"}
        values = {name: value for name, value in self.values.items() if name not in unread}
        config = self.write("prompter.json", {**values, **unused, **changes})
        return ["--config", str(config), "--output_dir", str(self.root / output), *flags]

    def resolved(self, *flags: str, **changes: Any) -> ResolvedConfig[PretrainConfig]:
        """The config of a run with all four losses."""
        return load_config(PretrainConfig, self.pretraining(*flags, **changes))

    def _write_table(self) -> None:
        """Write the training captions as WebVid has them."""
        with (self.root / "txt/train.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["videoid", "name", "page_dir"])
            for index in range(self.num_train):
                table.writerow([f"train{index}", caption_of(index), "x"])

    def _write_images(self, split: str, count: int) -> None:
        image = pytest.importorskip("PIL.Image")
        (self.root / "images").mkdir(exist_ok=True)
        entries = []
        for index in range(count):
            name = f"{split}{index}.png"
            pixels = np.random.default_rng(index).integers(0, 256, (36, 48, 3), np.uint8)
            image.fromarray(pixels).save(self.root / "images" / name)
            captions = [caption_of(index + 1), caption_of(index + 2)]
            entries.append({"image": name, "caption": captions if index % 2 else captions[0]})
        (self.root / f"txt/{split}_images.json").write_text(json.dumps(entries))
