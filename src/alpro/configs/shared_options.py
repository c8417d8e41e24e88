"""Config fields shared by pretraining and all tasks, one class per topic (section of ``--help``).

Names and defaults are the original's where it has the key; help texts name defaults that differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alpro.configs.fields import option, required
from alpro.families.registry import DEFAULT_FAMILY, FAMILIES
from alpro.installation import DECODERS

SAMPLING_STRATEGIES = (
    *("rand", "uniform", "headtail", "segment"),
    *("nlvl_uniform", "nlvl_rand", "start", "middle", "end"),
    *("linspace", "linspace_jitter", "interval"),
)
DECODE_TIMEOUT = 60.0  # seconds for reading a video
DECODE_MEMORY = 2048  # megabytes for reading a video
MAX_COUNT = 10**9  # of what costs nothing by itself: log lines, checkpoints, samples of a block
MAX_BATCH = 1 << 16  # samples of a batch
MAX_EPOCHS = 100_000
MAX_SIDE = 4096  # pixels along each side of a frame
MAX_SEED = 2**63 - 1  # of the generators of PyTorch
_CLIP_MEAN = "[0.48145466, 0.4578275, 0.40821073]"
_CLIP_STD = "[0.26862954, 0.26130258, 0.27577711]"


@dataclass(kw_only=True)
class RunOptions:
    """Output folder, hardware and life cycle of a run."""

    TOPIC: ClassVar[str] = "Run"

    output_dir: str = required(
        "folder for checkpoints, logs and results",
        remedy="Add --output_dir DIR.",
        path=True,
        per_run=True,
    )
    seed: int = option(42, "seed of everything random", minimum=0, maximum=MAX_SEED)
    precision: str = option(
        "auto", "arithmetic; auto follows fp16", choices=("auto", "fp32", "bf16", "fp16")
    )
    fp16: bool = option(False, "the original's key for precision fp16")
    device: str = option(
        "auto", "auto takes a GPU where there is one", choices=("auto", "cpu", "cuda"), per_run=True
    )
    engine: str = option(
        "auto",
        "auto takes Horovod under horovodrun, torch.distributed under torchrun, else one process",
        choices=("auto", "single", "horovod", "torch"),
        per_run=True,
    )
    hang_timeout: float = option(
        1800.0,
        "seconds without progress after which all processes print their stacks and end (0: never)",
        minimum=0,
        maximum=1_000_000,  # 11 days; system timers count milliseconds in 31 bits
        per_run=True,
    )
    on_nonfinite: str = option(
        "stop",
        "what to do about a loss or gradient norm that is not finite: stop and save the batch, or"
        " skip the update and count it",
        choices=("stop", "skip"),
        per_run=True,
    )
    num_threads: int = option(
        0,
        "CPU threads of a process (0: an equal share of the cores)",
        minimum=0,
        maximum=1024,
        per_run=True,
    )
    log_interval: int = option(
        500, "batches between two log lines", minimum=1, maximum=MAX_COUNT, per_run=True
    )
    keep_checkpoints: int = option(
        0, "numbered checkpoints to keep (0: all)", minimum=0, maximum=MAX_COUNT, per_run=True
    )
    overwrite: bool = option(
        False, "delete the run in the output folder and start over", per_run=True
    )
    dry_run: bool = option(
        False, "build everything, run one batch through, write nothing", per_run=True
    )
    debug: bool = option(False, "stop after a few steps")


@dataclass(kw_only=True)
class DataOptions:
    """Training data and its loading."""

    TOPIC: ClassVar[str] = "Data"

    data_ratio: float = option(
        1.0, "share of the annotations to keep, chosen at random", above=0, maximum=1
    )
    shuffle_block_size: int = option(
        1,
        "shuffle blocks of this many samples (for questions: videos with their questions):"
        " consecutive samples are kept in one batch",
        minimum=1,
        maximum=MAX_COUNT,
    )
    n_workers: int = option(
        4, "loading processes (num_workers is an alias)", minimum=0, maximum=1024, per_run=True
    )
    pin_mem: bool = option(True, "pinned memory for copies to a GPU", per_run=True)
    allow_missing_videos: bool = option(
        False,
        "continue without videos that are missing or unreadable; the report counts them",
        per_run=True,
    )
    max_unreadable_fraction: float = option(
        0.05,
        "unreadable videos or images that a process may replace, as a share of its samples of an"
        " epoch",
        minimum=0,
        maximum=1,
        per_run=True,
    )


@dataclass(kw_only=True)
class VideoOptions:
    """Frame sampling, decoding and text input."""

    TOPIC: ClassVar[str] = "Video and text input"

    # Frames of a clip, and clips of a video.
    num_frm: int = option(3, "frames per clip of a video", minimum=1, maximum=4096)
    train_n_clips: int = option(
        1,
        "clips per training video; pretraining takes only 1 (original: 3)",
        minimum=1,
        maximum=1000,
    )
    frm_sampling_strategy: str = option(
        "rand",
        "which frames (evaluation: rand becomes uniform, linspace_jitter becomes linspace)",
        choices=SAMPLING_STRATEGIES,
    )
    sample_rate: int = option(
        0,
        "interval only: one of this many consecutive frames is taken at a time",
        minimum=0,
        maximum=100_000,
    )
    # Size and normalization of a frame.
    crop_img_size: int = required(
        "height and width of the frames, in pixels",
        remedy="ALPRO uses 224.",
        minimum=1,
        maximum=MAX_SIDE,
    )
    img_pixel_mean: tuple[float, float, float] = required(
        "mean of R, G, B on a 0-1 scale", remedy=f"ALPRO uses {_CLIP_MEAN}.", minimum=0, maximum=1
    )
    img_pixel_std: tuple[float, float, float] = required(
        "standard deviation of R, G, B on a 0-1 scale",
        remedy=f"ALPRO uses {_CLIP_STD}.",
        minimum=0.001,
        maximum=1,
    )
    img_input_format: str = option(
        "RGB", "channel order; only RGB (the original's default BGR is refused by it too)"
    )
    augmentation: str = option(
        "none",
        "augmentation of training videos, the same for all frames of a video",
        choices=("none", "randaugment"),
    )
    # Decoding, in a process of its own with limits on time and memory.
    video_decoder: str = option(
        "auto",
        "auto takes PyAV, and decord where PyAV is not installed",
        choices=("auto", *DECODERS),
        per_run=True,
    )
    decode_timeout: float = option(
        DECODE_TIMEOUT,
        "seconds after which reading a video is cut off: it counts as unreadable, and is not tried"
        " again (0: never)",
        minimum=0,
        maximum=1_000_000,
        per_run=True,
    )
    decode_memory: int = option(
        DECODE_MEMORY,
        "megabytes that reading a video may take, else it is cut off (0: any)",
        minimum=0,
        maximum=10_000_000,
        per_run=True,
    )
    max_txt_len: int = option(
        20, "word pieces per text, with [CLS] and [SEP]", minimum=3, maximum=1 << 16
    )
    tokenizer_dir: str = required(
        "folder with the BERT vocabulary", remedy="ALPRO uses ext/bert-base-uncased/.", path=True
    )


@dataclass(kw_only=True)
class ModelOptions:
    """Network and starting weights."""

    TOPIC: ClassVar[str] = "Model and starting weights"

    family: str = option(DEFAULT_FAMILY, f"model family: {' | '.join(FAMILIES)}")
    e2e_weights_path: str | None = option(None, "checkpoint of a whole model (.pt)", path=True)
    random_init: bool = option(False, "start from random weights on purpose")
    freeze: list[str] = option(
        [], 'parameters not trained: patterns like "visual_encoder.model.blocks.*"'
    )
    attention: str = option(
        "auto",
        "attention kernel; auto takes the faster one",
        choices=("auto", "sdpa", "plain"),
        per_run=True,
    )


@dataclass(kw_only=True)
class OptimizationOptions:
    """Optimizer, schedule and batch size."""

    TOPIC: ClassVar[str] = "Optimization"

    # Batches and length of training.
    train_batch_size: int = option(
        128, "videos per process and batch", minimum=1, maximum=MAX_BATCH
    )
    gradient_accumulation_steps: int = option(1, "batches per update", minimum=1, maximum=100_000)
    accumulation: str = option(
        "sum", "gradients of an update's batches; sum as in the original", choices=("sum", "mean")
    )
    num_train_epochs: int = option(
        10, "passes over the training sets", minimum=1, maximum=MAX_EPOCHS
    )
    # Schedule of the learning rate.
    learning_rate: float = option(5e-5, "peak learning rate", above=0, maximum=100)
    warmup_ratio: float = option(0.1, "share of the updates for warm-up", minimum=0, maximum=1)
    decay: str = option(
        "linear",
        "schedule of the learning rate; warmup_cosine is T2VLP's, whose first update has rate 0",
        choices=("linear", "cosine", "warmup_cosine", "invsqrt", "constant", "multi_step"),
    )
    step_decay_epochs: list[int] | None = option(
        None,
        "multi_step only: epochs after which the rate is halved",
        minimum=0,
        maximum=MAX_EPOCHS,
    )
    # Optimizer.
    optim: str = option(
        "adamw",
        "optimizer; adamw_decay_last is that of ClipBERT and CLIP-ViP",
        choices=("adamw", "adamw_decay_last", "adam", "adamax"),
    )
    betas: tuple[float, float] = option(
        (0.9, 0.98), "decay rates of the optimizer's two moments", minimum=0, below=1
    )
    weight_decay: float = option(
        0.0,
        "not for biases, norms and temperature (original: read, never applied)",
        minimum=0,
        maximum=100,
    )
    grad_norm: float = option(
        2.0, "clip gradients to this norm (-1: off)", minimum=-1, maximum=10**12
    )


@dataclass(kw_only=True)
class ValidationOptions:
    """Intervals of validation and saving."""

    TOPIC: ClassVar[str] = "Validation and saving"

    val_batch_size: int = option(
        128,
        "validation videos, or questions about them, per process and batch",
        minimum=1,
        maximum=MAX_BATCH,
    )
    num_valid: int = option(20, "validations per run, about", minimum=1, maximum=MAX_COUNT)
    min_valid_steps: int = option(
        100, "updates between validations are a multiple", minimum=1, maximum=MAX_COUNT
    )
    only_valid_steps: int = option(
        0,
        "updates between further validations, which keep a checkpoint only if it is the best"
        " (0: none)",
        minimum=0,
        maximum=MAX_COUNT,
    )
    save_steps_ratio: float = option(
        0.01, "share of the updates between two restore points", above=0, maximum=1
    )
