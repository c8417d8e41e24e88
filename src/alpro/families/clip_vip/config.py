"""CLIP-ViP's part of a config: CLIP's architecture, the video proxies, and the loss.

`translation` makes these keys of those of the original's files.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from alpro.configs.family import FamilyConfig, JsonObject
from alpro.configs.fields import Constraint, option, override_default, required
from alpro.configs.shared_options import ModelOptions, OptimizationOptions, VideoOptions
from alpro.configs.sources import ConfigSource
from alpro.families.clip_vip.translation import (
    ALIASES,
    INERT,
    PLAIN,
    PROXIES,
    translate,
    translate_clip,
)
from alpro.tasks.retrieval.config import RetrievalConfig

MAX_WIDTH, MAX_LAYERS, MAX_HEADS = 1 << 16, 1000, 1 << 12
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "relu")
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_AS_IT_IS = {"num_frm": 12, "frm_sampling_strategy": "linspace", "max_txt_len": 77}
EMBED_STD = (0.02, 0.02, 0.0)  # of patches, positions and times: CLIP's and CLIP-ViP's

_PAIRS = ("videos", "subtitles")
_CAPTIONS = (*_PAIRS, "captions")
_IMAGES = (*_CAPTIONS, "images")


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """Inputs of a function of `losses.LOSSES`."""

    features: tuple[str, ...] = _PAIRS
    """Fields of `losses.GlobalFeatures` that it needs."""
    parameters: tuple[str, ...] = ()
    """Further keys of ``loss_config``, all of them required."""
    can_exclude: bool = False
    """Whether pairs can be excluded from the negatives."""

    @property
    def trained_temperature(self) -> bool:
        """Whether it takes the model's temperature, which otherwise gets no gradient."""
        return not self.parameters


_TRIPLET = ("margin", "measure", "max_violation")
LOSS_SPECS = {
    "NCEContrastiveLoss": LossSpec(parameters=("temp",), can_exclude=True),
    "NCELearnableTempLoss": LossSpec(can_exclude=True),
    "NCELearnableTempDSLLoss": LossSpec(),
    "TripletContrastiveLoss": LossSpec(parameters=_TRIPLET),
    "HardNegLoss": LossSpec(parameters=("hard_negative_num",)),
    "MILNCEContrastiveLoss": LossSpec(parameters=("temp",)),
    "NCELearnableTempLoss_vs_vc": LossSpec(features=_CAPTIONS),
    "NCELearnableTempLoss_vsc": LossSpec(features=_CAPTIONS),
    "VidImgNCELearnableTempLoss": LossSpec(features=_IMAGES),
    "VidImgDivideNCELearnableTempLoss": LossSpec(features=_IMAGES),
    "NCELearnableTempLoss_vs_vc_fc": LossSpec(features=_IMAGES),
    "NCELearnableTempLoss_vsc_fc": LossSpec(features=_IMAGES),
}
"""Name of the original's class -> its inputs."""
LOSS_PARAMETERS = tuple(
    dict.fromkeys(key for spec in LOSS_SPECS.values() for key in spec.parameters)
)
RETRIEVAL_LOSSES = tuple(name for name, spec in LOSS_SPECS.items() if spec.features == _PAIRS)


@dataclass(kw_only=True)
class ClipConfig:
    """Sizes of CLIP; the defaults are those of ViT-B/32."""

    TOPIC: ClassVar[str] = "CLIP (clip_config)"
    INERT: ClassVar[frozenset[str]] = frozenset()
    SIZE_KEYS: ClassVar[tuple[str, ...]] = (
        *("vision_num_hidden_layers", "vision_hidden_size", "text_num_hidden_layers"),
        *("text_hidden_size", "vocab_size"),
    )

    # Vision tower.
    image_size: int = option(224, "pixels along each side of a frame", minimum=1, maximum=4096)
    patch_size: int = option(32, "pixels along each side of a patch", minimum=1, maximum=4096)
    vision_hidden_size: int = option(768, "width of the tokens", minimum=1, maximum=MAX_WIDTH)
    vision_num_hidden_layers: int = option(12, "number of layers", minimum=1, maximum=MAX_LAYERS)
    vision_num_attention_heads: int = option(12, "attention heads", minimum=1, maximum=MAX_HEADS)
    vision_intermediate_size: int = option(3072, "width of the MLP", minimum=1, maximum=MAX_WIDTH)
    # Text tower.
    vocab_size: int = option(
        49408, "tokens; must match the tokenizer", minimum=3, maximum=10_000_000
    )
    max_position_embeddings: int = option(77, "longest text, in tokens", minimum=1, maximum=1 << 16)
    text_hidden_size: int = option(512, "width of the tokens", minimum=1, maximum=MAX_WIDTH)
    text_num_hidden_layers: int = option(12, "number of layers", minimum=1, maximum=MAX_LAYERS)
    text_num_attention_heads: int = option(8, "attention heads", minimum=1, maximum=MAX_HEADS)
    text_intermediate_size: int = option(2048, "width of the MLP", minimum=1, maximum=MAX_WIDTH)
    # Both.
    projection_dim: int = option(512, "width of the embeddings", minimum=1, maximum=MAX_WIDTH)
    vision_hidden_act: str = option("quick_gelu", "activation", choices=ACTIVATIONS)
    text_hidden_act: str = option("quick_gelu", "activation", choices=ACTIVATIONS)

    @staticmethod
    def translate(layer: ConfigSource) -> None:
        """Take the keys from the ``config.json`` of a CLIP of transformers."""
        translate_clip(layer, known=ClipConfig.__annotations__)


@dataclass(kw_only=True)
class ClipVipOptions(ModelOptions):
    """CLIP, video proxies and loss."""

    TOPIC: ClassVar[str] = ModelOptions.TOPIC
    ALIASES: ClassVar[dict[str, str]] = ALIASES
    INERT: ClassVar[frozenset[str]] = INERT

    # CLIP and its weights.
    clip_config: str = required(
        "CLIP's config.json, a folder with one, or a name on the Hugging Face hub;"
        " openai/clip-vit-base-patch32 and 16 are included",
        remedy="CLIP-ViP uses openai/clip-vit-base-patch32.",
        path=True,
    )
    clip_weights: str | None = option(
        None,
        "CLIP's weights to start from: a folder, a file, or a name in Hugging Face's cache",
        path=True,
    )
    gradient_checkpointing: bool = option(
        False, "recompute layers in the backward pass: less memory, more time"
    )
    # Video proxies (`clip_vision_additional_config`).
    vision_type: str = option(
        PROXIES,
        "ViP: video proxies; plain: CLIP and the mean over frames",
        choices=(PROXIES, PLAIN),
    )
    add_cls_num: int = option(3, "proxies besides CLIP's class token", minimum=0, maximum=1000)
    temporal_size: int = option(
        12, "rows of the time embedding; other numbers interpolate it", minimum=1, maximum=4096
    )
    if_use_temporal_embed: bool = option(True, "whether patches have a time embedding")
    random_embed_std: tuple[float, float, float] = option(
        EMBED_STD, "spread of random embeddings of patches, positions, times", minimum=0, maximum=9
    )
    logit_scale_init_value: float = option(
        4.6, "initial log of the scale of similarities", minimum=0, maximum=10
    )
    overload_logit_scale: float | None = option(
        None, "the same, in place of a checkpoint's (null: keep it)", minimum=0, maximum=10
    )
    # Loss (`loss_config`).
    loss_name: str = option(
        "NCELearnableTempLoss", "contrastive loss, by its original name", choices=tuple(LOSS_SPECS)
    )
    if_gather: bool = option(True, "compare the pairs of all processes; only 1")
    temp: float | None = option(None, "fixed temperature", above=0, maximum=100)
    margin: float | None = option(None, "margin of the triplet loss", minimum=0, maximum=100)
    measure: str | None = option(None, "similarity of triplet loss", choices=("cosine", "order"))
    max_violation: bool | None = option(None, "triplet loss of the hardest negative alone")
    hard_negative_num: int | None = option(
        None, "negatives of the hard-negative loss", minimum=1, maximum=1 << 16
    )
    # Learning rate of some parameters.
    lr_mul: float = option(1.0, "factor of the rate of lr_mul_prefix", minimum=0, maximum=1_000_000)
    lr_mul_prefix: str | None = option(None, "part of the names of parameters with another rate")
    # Keys of the original that become others.
    sample_jitter: bool | None = option(
        None, "the original's key for frm_sampling_strategy linspace_jitter"
    )
    blob_mount_dir: str | None = option(
        None, "folder that relative paths of data, checkpoint and output are in", path=True
    )

    def notices(self, *, infers: bool, stored: Collection[str]) -> list[str]:
        """Return sentences about keys without effect, those of other losses among them."""
        parent: Any = super()
        takes = LOSS_SPECS[self.loss_name].parameters
        return parent.notices(infers=infers, stored=stored) + [
            f"{key} has no effect: {self.loss_name} takes {', '.join(takes) or 'no further key'}"
            for key in LOSS_PARAMETERS
            if key not in takes and getattr(self, key) is not None and not infers
        ]

    # Other defaults.
    tokenizer_dir: str = override_default(VideoOptions, "tokenizer_dir", "ext/clip-bpe/")
    crop_img_size: int = override_default(VideoOptions, "crop_img_size", 224)
    img_pixel_mean: tuple[float, float, float] = override_default(
        VideoOptions, "img_pixel_mean", CLIP_MEAN
    )
    img_pixel_std: tuple[float, float, float] = override_default(
        VideoOptions, "img_pixel_std", CLIP_STD
    )
    frm_sampling_strategy: str = override_default(
        VideoOptions, "frm_sampling_strategy", "linspace_jitter"
    )
    optim: str = override_default(OptimizationOptions, "optim", "adamw_decay_last")
    use_itm: bool = override_default(RetrievalConfig, "use_itm", False)
    text_lists: str = override_default(RetrievalConfig, "text_lists", "draw")
    dual_softmax: bool = override_default(RetrievalConfig, "dual_softmax", True)


def _needs(parameter: str) -> Constraint:
    return Constraint(
        ("loss_name", parameter),
        lambda name, value: value is None and parameter in LOSS_SPECS[name].parameters,
        f"this loss needs {parameter}",
        f"Set {parameter} in loss_config.",
    )


def loss_parameters(config: Any) -> dict[str, Any]:
    """Keys of ``loss_config`` that the loss of a config takes."""
    return {key: getattr(config, key) for key in LOSS_SPECS[config.loss_name].parameters}


def from_transformers(config: JsonObject, pixels: JsonObject) -> JsonObject | None:
    """Keys of a config that retrieves with a CLIP of transformers as it is."""
    size = (config.get("vision_config") or {}).get("image_size", ClipConfig.image_size)
    own = {"vision_type": PLAIN, "crop_img_size": size, **CLIP_AS_IT_IS}
    own |= {f"img_pixel_{x}": pixels[y] for x in ("mean", "std") if (y := f"image_{x}") in pixels}
    return own if config.get("model_type") == "clip" else None


CONFIG = FamilyConfig(
    from_transformers=from_transformers,
    options=ClipVipOptions,
    architecture={"clip_config": ClipConfig},
    signature=frozenset({"clip_config", "clip_vision_additional_config"}),
    translate=translate,
    constraints=(
        # Frames.
        Constraint(
            ("crop_img_size", "clip_config.image_size"),
            lambda size, trained: size != trained,
            "CLIP's position embedding is of one size, and is not interpolated",
            "Make them equal.",
        ),
        Constraint(
            ("clip_config.image_size", "clip_config.patch_size"),
            lambda size, patch: size % patch != 0,
            "frames are cut into whole patches",
            "Make image_size a multiple of patch_size.",
        ),
        # Widths of both towers.
        *(
            Constraint(
                (f"clip_config.{tower}_hidden_size", f"clip_config.{tower}_num_attention_heads"),
                lambda width, heads: width % heads != 0,
                "every attention head has the same width",
                "Make hidden_size a multiple of num_attention_heads.",
            )
            for tower in ("vision", "text")
        ),
        Constraint(
            ("clip_config.vision_hidden_act", "clip_config.text_hidden_act"),
            lambda vision, text: vision != text,
            "both towers have one activation",
            "Make them equal.",
        ),
        Constraint(
            ("max_txt_len", "clip_config.max_position_embeddings"),
            lambda length, positions: length > positions,
            "CLIP has no position embedding beyond its last one",
            "Lower max_txt_len.",
        ),
        # Losses.
        *map(_needs, LOSS_PARAMETERS),
        Constraint(
            ("mask_same_video", "loss_name"),
            lambda mask, name: mask and not LOSS_SPECS[name].can_exclude,
            "this loss cannot leave pairs out",
            "Set mask_same_video to 0, or loss_name to NCELearnableTempLoss.",
        ),
        Constraint(
            ("score_agg_func",),
            lambda how: how != "mean",
            "the losses compare the mean of a video's clips",
            "Set it to mean.",
        ),
        Constraint(
            ("if_gather",),
            lambda gathers: not gathers,
            "the losses compare the pairs of all processes",
            "Set it to 1.",
        ),
        Constraint(
            ("lr_mul_prefix", "lr_mul"),
            lambda names, factor: not names and factor != 1,
            "no parameter has another learning rate",
            "Set lr_mul_prefix, or lr_mul to 1.",
        ),
    ),
)
