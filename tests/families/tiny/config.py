"""Keys of the second family: one file of the model, and a folder of weights to start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alpro.configs.family import FamilyConfig
from alpro.configs.fields import Constraint, option, override_default, required
from alpro.configs.shared_options import ModelOptions
from alpro.tasks.retrieval.config import RetrievalConfig


@dataclass(kw_only=True)
class TinyConfig:
    """Sizes of both towers."""

    TOPIC: ClassVar[str] = "Towers (tiny_config)"
    INERT: ClassVar[frozenset[str]] = frozenset({"model_type"})
    SIZE_KEYS: ClassVar[tuple[str, ...]] = ("width", "num_words")

    width: int = option(8, "width of the embeddings", minimum=1, maximum=64)
    num_words: int = option(10, "words of the vocabulary", minimum=1, maximum=1000)
    grid: int = option(4, "cells along each side of a frame", minimum=1, maximum=64)


@dataclass(kw_only=True)
class TinyOptions(ModelOptions):
    """The second family's keys."""

    ALIASES: ClassVar[dict[str, str]] = {"towers": "tiny_config"}
    INERT: ClassVar[frozenset[str]] = frozenset({"clip_weights"})

    tiny_config: str = required("JSON of the towers", remedy="Name one.", path=True)
    use_itm: bool = override_default(RetrievalConfig, "use_itm", False)


CONFIG = FamilyConfig(
    options=TinyOptions,
    architecture={"tiny_config": TinyConfig},
    constraints=(
        Constraint(
            ("crop_img_size", "tiny_config.grid"),
            lambda size, grid: size % grid != 0,
            "frames are cut into whole cells",
            "Make crop_img_size a multiple of grid.",
        ),
    ),
    signature=frozenset({"tiny_config", "towers"}),
)
