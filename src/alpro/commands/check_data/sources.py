"""Sets to check: those of a config, or a folder, LMDB or shards of videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alpro.configs.downstream import DownstreamConfig, annotation_file, extension_of
from alpro.configs.errors import ConfigError, ConfigIssue
from alpro.configs.experiment import ExperimentConfig
from alpro.configs.loading import ResolvedConfig, load_config
from alpro.configs.shared_options import DECODE_MEMORY, DECODE_TIMEOUT
from alpro.configs.sources import read_json_object
from alpro.tasks.pretraining.config import PostPretrainConfig, PretrainingConfig
from alpro.tasks.pretraining.options import media_of, pretraining_file
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.registry import TASKS, kind_of

Rows = Literal["captions", "questions", "captioned videos", "captioned images", "clips"]
"""Kind of rows of an annotation file."""
Split = Literal["train", "val", "test", ""]

_SPLITS: dict[str, Split] = {
    "train_datasets": "train",
    "val_datasets": "val",
    "test_datasets": "test",
}


@dataclass(frozen=True, slots=True)
class CheckedSet:
    """One set of annotations with its videos or images."""

    key: str
    """Of the set in the config: ``train_datasets.0``."""
    name: str
    split: Split
    annotations: Path
    rows: Rows
    media: Path | None
    """Folder, LMDB or shards of videos; where the paths of images begin, None: as they are."""
    extension: str = ".mp4"

    @property
    def of_images(self) -> bool:
        """Whether the set has images."""
        return self.rows == "captioned images"

    def __str__(self) -> str:
        return f"{self.name} ({self.key})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Frame sampling of the check."""

    num_frames: int = 8
    strategy: str = "nlvl_uniform"
    sample_rate: int = 0
    decoder: str = "auto"
    counts_as_short: bool = False
    """Whether videos with fewer frames are reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLimits:
    """Tokenizer and maximum length of texts."""

    tokenizer_dir: Path
    family: str
    architecture: Mapping[str, Any]
    max_length: int
    """Word pieces, with [CLS] and [SEP]."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything to check."""

    title: str
    sets: Sequence[CheckedSet]
    sampling: Sampling
    storages: Mapping[Path, str] = field(default_factory=dict)
    """Where every video is probed, also those that no set names, and the extension tried first."""
    texts: TextLimits | None = None
    labels: Path | None = None
    """The map from answers to labels."""
    seconds: float = DECODE_TIMEOUT
    megabytes: int = DECODE_MEMORY


def task_of_config(path: Path, *, kind: str | None, flags: Sequence[str]) -> Task:
    """All sets of a config.

    Args:
        path: the JSON file.
        kind: a key of `TASKS`; None: derived from the file's keys.
        flags: further ones of the config's script.

    Raises:
        ConfigError: lists all problems of the config.
    """
    # The kind of the config decides how the rest is read.
    problems: list[ConfigIssue] = []
    raw = read_json_object(path, named_by="--config", problems=problems)
    if problems:
        raise ConfigError(problems)
    config_class = TASKS[kind] if kind else kind_of(raw)
    resolved = load_config(config_class, ["--output_dir", ".", "--config", str(path), *flags])
    config = resolved.config
    return Task(
        title=str(path),
        sets=list(_sets_of(config)),
        sampling=Sampling(
            num_frames=config.num_frm,
            strategy=config.frm_sampling_strategy,
            sample_rate=config.sample_rate,
            decoder=config.video_decoder,
            counts_as_short=True,
        ),
        texts=_limits(resolved),
        labels=Path(config.ans2label_path) if isinstance(config, QaConfig) else None,
        seconds=config.decode_timeout,
        megabytes=config.decode_memory,
    )


def _sets_of(config: ExperimentConfig) -> Iterator[CheckedSet]:
    for key, split in _SPLITS.items():
        for number, part in enumerate(getattr(config, key, [])):
            # Pretraining has videos and images, other tasks videos only.
            named = f"{key}.{number}", part.name, split
            if isinstance(config, PostPretrainConfig):
                media = None if part.img is None else Path(part.img)
                yield CheckedSet(*named, Path(pretraining_file(part)), "clips", media)
            elif isinstance(config, PretrainingConfig):
                of_images = media_of(part) == "image"
                yield CheckedSet(
                    *named,
                    annotations=Path(pretraining_file(part)),
                    rows="captioned images" if of_images else "captioned videos",
                    media=None if part.img is None else Path(part.img),
                )
            else:
                task, rows = _of_task(config)
                yield CheckedSet(
                    *named,
                    annotations=Path(annotation_file(part, task)),
                    rows=rows,
                    media=Path(part.img),
                    extension=_extension(config),
                )
    if isinstance(config, DownstreamConfig) and config.inference_txt_db is not None:
        name = config.inference_split or Path(config.inference_txt_db).stem
        yield CheckedSet(
            *("inference", name, "test"),
            annotations=Path(config.inference_txt_db),
            rows=_of_task(config)[1],
            media=Path(str(config.inference_img_db)),
            extension=_extension(config),
        )


def _of_task(config: ExperimentConfig) -> tuple[str | None, Rows]:
    """The entry of a set's `txt` that a task reads, and what it holds."""
    return (config.task, "questions") if isinstance(config, QaConfig) else (None, "captions")


def _extension(config: Any) -> str:
    """Extension tried first, as in training."""
    names = [part.name for part in config.train_datasets]
    set_names = config.task if isinstance(config, QaConfig) else " ".join(names)
    return extension_of(set_names)


def _limits(resolved: ResolvedConfig[Any]) -> TextLimits:
    return TextLimits(
        tokenizer_dir=Path(resolved.config.tokenizer_dir),
        family=resolved.config.family,
        architecture=resolved.architecture,
        max_length=resolved.config.max_txt_len,
    )


def task_of_videos(videos: Path, *, rows: Mapping[Path, Rows]) -> Task:
    """A folder, LMDB or shards of videos, all of which are probed.

    Args:
        videos: where they are.
        rows: files that name some of them, and what these hold.
    """
    sets = [
        CheckedSet(f"--annotations {path}", path.name, "", path, kind, videos)
        for path, kind in rows.items()
    ]
    return Task(title=str(videos), sets=sets, sampling=Sampling(), storages={videos: ".mp4"})
