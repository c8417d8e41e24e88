"""Where the results of an evaluation go, and everything that its numbers depend on."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from src import __version__
from src.configs.layers import DEFAULT_SOURCE, INFERENCE_SOURCE, STORED_SOURCE
from src.configs.loading import Resolved
from src.configs.schema import DownstreamConfig
from src.datasets.sampling import evaluation_sampling
from src.distributed.engine import Engine
from src.evaluation.sets import EvaluationSet
from src.training.output import OutputFolder, changed_keys, read_stored
from src.training.precision import usable_precision

logger = logging.getLogger(__name__)

_SAME_NUMBERS = ("version",)  # of the protocol: another one is no other evaluation
_NOT_GIVEN = (DEFAULT_SOURCE, STORED_SOURCE, INFERENCE_SOURCE)


def results_folder(
    config: DownstreamConfig, annotations: Path, *, checkpoint: Path, step: str, suffix: str
) -> Path:
    """The original's folder for results.

    Other ways to evaluate than the original's, and checkpoints from elsewhere than the run's own
    folder, have folders of their own.

    Args:
        config: of the experiment.
        annotations: of the set that is evaluated.
        checkpoint: the weights.
        step: the checkpoint's name in the run's own folder.
        suffix: what a task adds for ways to evaluate that are its own.
    """
    own = OutputFolder(Path(config.output_dir), rank=0).checkpoint(step)
    model = step if checkpoint.absolute() == own.absolute() else checkpoint.stem
    name = f"step_{model}_{config.inference_n_clips}_{config.score_agg_func}{suffix}"
    if config.frame_order != "original":
        name += f"_{config.frame_order}"
    return Path(config.output_dir) / f"results_{annotations.stem}" / name


def given_arguments(resolved: Resolved[Any]) -> dict[str, Any]:
    """What the command line and its config file have set, without defaults and stored values."""
    sources = resolved.sources.items()
    own = {key.split(".")[0] for key, source in sources if _first_part(source) not in _NOT_GIVEN}
    return {key: value for key, value in resolved.to_json().items() if key in own}


def _first_part(source: str) -> str:
    """A source without the other name under which it has a key: ``flag (as num_workers)``."""
    return source.partition(" (as ")[0]


def protocol_of(
    config: DownstreamConfig,
    data: EvaluationSet[Any],
    *,
    checkpoint: Path,
    sha256_of: Callable[[Path], str],
    engine: Engine,
) -> dict[str, Any]:
    """Everything that the numbers of an evaluation depend on, whatever the task."""
    return {
        "annotations": str(data.annotations),
        "annotations_sha256": sha256_of(data.annotations),
        "videos": str(data.folder),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256_of(checkpoint),
        "num_frames": config.num_frm,
        "num_clips": config.inference_n_clips,
        "clip_aggregation": config.score_agg_func,
        "frame_sampling": evaluation_sampling(config.frm_sampling_strategy),
        "frame_order": config.frame_order,
        "resolution": config.crop_img_size,
        "video_decoder": config.video_decoder,
        "max_txt_len": config.max_txt_len,
        "precision": usable_precision(config.precision, engine.device),
        "seed": config.seed,
        "version": __version__,
    }


def warn_of_replacement(folder: Path, *, protocol: Mapping[str, Any]) -> None:
    """Warn if the results of another evaluation are in a folder.

    Args:
        folder: where results will be written.
        protocol: of these results, without counts.
    """
    before = read_stored(folder / "scores.json").get("protocol")
    if not isinstance(before, dict):
        return
    changed = changed_keys(before, protocol, without=_SAME_NUMBERS)
    if changed:
        told = "; ".join(f"{key} {before[key]} there, {protocol[key]} now" for key in changed)
        logger.warning("these results replace others in %s: %s", folder, told)
