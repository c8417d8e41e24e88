"""ALPRO's part of a config: the files of its two encoders, and their starting weights.

Frame count and size come from the experiment (`num_frm`, `crop_img_size`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alpro.configs.family import FamilyConfig
from alpro.configs.fields import Constraint, option, required
from alpro.configs.shared_options import ModelOptions

MAX_WIDTH = 1 << 16  # of tokens and embeddings; GPT-3 has 12,288
MAX_LAYERS = 1000
MAX_HEADS = 1 << 12
MAX_WORDS = 10_000_000  # word pieces; the largest vocabularies of today have 256,000
MAX_SPREAD = 100  # standard deviation of initial weights


@dataclass(kw_only=True)
class VideoEncoderConfig:
    """TimeSformer, divided space-time attention."""

    TOPIC: ClassVar[str] = "Video encoder (visual_model_cfg)"
    INERT: ClassVar[frozenset[str]] = frozenset()
    TRAINING_ONLY: ClassVar[frozenset[str]] = frozenset(
        {
            *("drop_rate", "attn_drop_rate", "drop_path_rate", "gradient_checkpointing"),
            *("initializer_range", "pos_embed_std", "time_embed_std", "temporal_init"),
            *("maxpool_kernel_size", "use_maxpooling"),
        }
    )
    SIZE_KEYS: ClassVar[tuple[str, ...]] = ("depth", "embed_dim", "mlp_ratio", "patch_size")

    # Architecture.
    cls: str = option("TimeSformer", "encoder class", choices=("TimeSformer",))
    patch_size: int = option(16, "pixels along each side of a patch", minimum=1, maximum=4096)
    embed_dim: int = option(768, "width of the tokens", minimum=1, maximum=MAX_WIDTH)
    depth: int = option(12, "number of blocks", minimum=1, maximum=MAX_LAYERS)
    num_heads: int = option(12, "attention heads", minimum=1, maximum=MAX_HEADS)
    mlp_ratio: float = option(
        4.0, "width of the MLP, as a multiple of embed_dim", above=0, maximum=64
    )
    # Regularisation and memory.
    drop_rate: float = option(0.0, "dropout after embeddings and MLPs", minimum=0, below=1)
    attn_drop_rate: float = option(0.0, "dropout of attention weights", minimum=0, below=1)
    drop_path_rate: float = option(
        0.1, "stochastic depth of the last block; grows linearly from 0", minimum=0, below=1
    )
    gradient_checkpointing: bool = option(
        False, "recompute blocks in the backward pass: less memory, more time"
    )
    pooling: str = option(
        "cls", "what the VTC embedding is projected from", choices=("cls", "mean")
    )
    # Initial weights.
    initializer_range: float = option(
        0.02, "standard deviation of initial weights", above=0, maximum=MAX_SPREAD
    )
    pos_embed_std: float = option(
        0.02, "standard deviation of the initial position embedding", minimum=0, maximum=MAX_SPREAD
    )
    time_embed_std: float = option(
        0.0,
        "standard deviation of the initial time embedding",
        minimum=0,
        maximum=MAX_SPREAD,
    )
    temporal_init: str = option(
        "zero",
        "initial temporal projections: zero makes the fresh model an image model per frame",
        choices=("zero", "normal"),
    )
    # Keys of the original's files that have no effect.
    maxpool_kernel_size: int = option(
        2, "no effect; kept for the original's files", minimum=0, maximum=MAX_WIDTH
    )
    use_maxpooling: bool = option(False, "no effect; kept for the original's files")


@dataclass(kw_only=True)
class TextEncoderConfig:
    """BERT, split into text layers (the first `fusion_layer`) and fusion layers (the rest)."""

    TOPIC: ClassVar[str] = "Text and fusion encoder (model_config)"
    INERT: ClassVar[frozenset[str]] = frozenset(
        {  # written into BERT's own config.json by transformers
            *("architectures", "classifier_dropout", "gradient_checkpointing"),
            *("position_embedding_type", "transformers_version", "use_cache"),
        }
    )
    SIZE_KEYS: ClassVar[tuple[str, ...]] = (
        *("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"),
        *("max_position_embeddings", "type_vocab_size"),
    )

    model_type: str = option("bert", "family of the text encoder", choices=("bert",))
    vocab_size: int = option(
        30522, "word pieces; must match the tokenizer", minimum=1, maximum=MAX_WORDS
    )
    hidden_size: int = option(768, "width of the tokens", minimum=1, maximum=MAX_WIDTH)
    num_hidden_layers: int = option(
        12, "text layers + fusion layers", minimum=1, maximum=MAX_LAYERS
    )
    fusion_layer: int = option(
        6, "number of text layers; the rest fuse text and video", minimum=1, maximum=MAX_LAYERS
    )
    num_attention_heads: int = option(12, "attention heads", minimum=1, maximum=MAX_HEADS)
    intermediate_size: int = option(3072, "width of the MLP", minimum=1, maximum=1 << 20)
    hidden_act: str = option(
        "gelu", "activation", choices=("gelu", "gelu_new", "relu", "silu", "tanh")
    )
    # Regularisation, positions and initial weights.
    hidden_dropout_prob: float = option(0.1, "dropout", minimum=0, below=1)
    attention_probs_dropout_prob: float = option(
        0.1, "dropout of attention weights", minimum=0, below=1
    )
    max_position_embeddings: int = option(
        512, "longest text, in word pieces", minimum=1, maximum=1 << 16
    )
    type_vocab_size: int = option(
        2, "token types (only type 0 is used)", minimum=1, maximum=1 << 16
    )
    initializer_range: float = option(
        0.02, "standard deviation of initial weights", above=0, maximum=MAX_SPREAD
    )
    layer_norm_eps: float = option(1e-12, "epsilon of the layer norms", above=0, maximum=1)
    pad_token_id: int = option(0, "id of the padding token", minimum=0, maximum=MAX_WORDS)
    itc_token_type: str = option("cls", "token the VTC embedding comes from", choices=("cls",))
    itc_embed_dim: int = option(256, "width of the VTC embeddings", minimum=1, maximum=MAX_WIDTH)
    encoder_width: int = option(
        768, "no effect; kept for the original's files", minimum=0, maximum=MAX_WIDTH
    )


@dataclass(kw_only=True)
class AlproOptions(ModelOptions):
    """The encoders and the weights that they start from."""

    model_config: str = required(
        "JSON of the text and fusion encoder",
        remedy="ALPRO uses config_release/base_model.json.",
        path=True,
    )
    visual_model_cfg: str = required(
        "JSON of the video encoder",
        remedy="ALPRO uses config_release/timesformer_divst_8x32_224_k600.json.",
        path=True,
    )
    visual_weights_path: str | None = option(
        None,
        "image ViT for the video encoder; vit_base_patch16_224 means ext/vit_base_patch16_224",
        path=True,
    )
    bert_weights_path: str | None = option(None, "BERT weights (null: tokenizer_dir)", path=True)


CONFIG = FamilyConfig(
    options=AlproOptions,
    architecture={"visual_model_cfg": VideoEncoderConfig, "model_config": TextEncoderConfig},
    constraints=(
        # Widths of the video encoder.
        Constraint(
            ("crop_img_size", "visual_model_cfg.patch_size"),
            lambda size, patch: size % patch != 0,
            "frames are cut into whole patches",
            "Make crop_img_size a multiple of patch_size.",
        ),
        Constraint(
            ("visual_model_cfg.embed_dim", "visual_model_cfg.num_heads"),
            lambda width, heads: width % heads != 0,
            "every attention head has the same width",
            "Make embed_dim a multiple of num_heads.",
        ),
        Constraint(
            ("visual_model_cfg.mlp_ratio", "visual_model_cfg.embed_dim"),
            lambda ratio, width: int(width * ratio) < 1,
            "the MLP has a width of 0",
            "Raise mlp_ratio.",
        ),
        # Widths and layers of the text encoder, and of both together.
        Constraint(
            ("model_config.hidden_size", "model_config.num_attention_heads"),
            lambda width, heads: width % heads != 0,
            "every attention head has the same width",
            "Make hidden_size a multiple of num_attention_heads.",
        ),
        Constraint(
            ("visual_model_cfg.embed_dim", "model_config.hidden_size"),
            lambda video, text: video != text,
            "the fusion layers read video and text tokens as one sequence",
            "Make embed_dim and hidden_size equal.",
        ),
        Constraint(
            ("model_config.fusion_layer", "model_config.num_hidden_layers"),
            lambda text_layers, layers: text_layers >= layers,
            "at least one layer must be left to fuse text and video",
            "Make fusion_layer smaller than num_hidden_layers.",
        ),
        # Lengths and ids of texts.
        Constraint(
            ("max_txt_len", "model_config.max_position_embeddings"),
            lambda length, positions: length > positions,
            "the text encoder has no position embedding beyond its last one",
            "Lower max_txt_len.",
        ),
        Constraint(
            ("model_config.pad_token_id", "model_config.vocab_size"),
            lambda pad, size: pad >= size,
            "the padding token is a word of the vocabulary",
            "Lower pad_token_id.",
        ),
    ),
)
