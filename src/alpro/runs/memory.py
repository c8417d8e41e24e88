"""Lower bounds of a config's memory, compared with the free memory before anything is built."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alpro.configs.downstream import DownstreamConfig
from alpro.datasets.dataloader import PREFETCHED_BATCHES_PER_WORKER
from alpro.errors import InputError
from alpro.experiment.experiment import Experiment
from alpro.optimization.optimizer import freeze_parameters

BYTES_OF_FLOAT = 4  # weights, gradients and averages are float32 in every precision
COPIES_TO_TRAIN = 4  # of a trainable parameter: weight, gradient, the optimizer's two averages
_LIMITS_OF_CGROUPS = {  # controllers in /proc/self/cgroup -> folder, limit and use
    "": ("", "memory.max", "memory.current"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}
_CACHES = ("inactive_file", "active_file")  # count as used, and make room when it is needed


def check_model(experiment: Experiment[Any]) -> None:
    """Check the experiment's model before memory is taken for it.

    Raises:
        InputError: the model does not fit into memory, or nothing of it is left to train.
    """
    # Build the model without memory, and freeze it as the training will.
    config, device = experiment.config, experiment.engine.device
    trains = not (isinstance(config, DownstreamConfig) and config.do_inference)
    with torch.device("meta"):  # shapes alone
        model = experiment.task.build_model()
    if trains:
        freeze_parameters(model, config.freeze)
    # Count weights where it is built, and gradients and averages where it is trained.
    num_all = sum(parameter.numel() for parameter in model.parameters())
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad) if trains else 0
    to_train = (COPIES_TO_TRAIN - 1) * num_trained
    wanted = {torch.device("cpu"): num_all, device: num_all + to_train}  # it is built on the CPU
    for place, num_floats in wanted.items():
        lack = _lack(num_floats * BYTES_OF_FLOAT, place)
        if lack is None:
            continue
        # Name the largest parts and the keys that determine them.
        parts = sorted(model.named_children(), key=lambda part: -_size(part[1]))[:2]
        sizes = " and ".join(f"{_size(part):,} in {name}" for name, part in parts)
        why = ", with gradients and the optimizer's averages," if num_floats > num_all else ""
        raise InputError(
            f"the model has {num_all:,} parameters ({sizes}), which{why} take {lack}."
            f" {_model_keys(experiment)}"
        )


def check_batches(
    experiment: Experiment[Any], *, size_key: str, num_samples: int, num_clips: int = 1
) -> None:
    """Check the batches that a loader reads ahead, and one on its way through the model.

    An evaluation encodes the `num_clips` clips of a video one after the other, training its
    ``train_n_clips`` together.

    Raises:
        InputError: they do not fit into memory.
    """
    config, device = experiment.config, experiment.engine.device
    # Count the batches that the loader holds, and the frames that its workers read.
    trains = size_key == "train_batch_size"
    num_clips = config.train_n_clips if trains else num_clips
    batch = max(1, min(getattr(config, size_key), num_samples))
    ahead = config.n_workers * PREFETCHED_BATCHES_PER_WORKER
    num_loaded = 1 + (ahead if trains else min(ahead, num_samples // batch))
    evaluated = getattr(config, "num_evaluated_frames", config.num_frm)
    num_frames = config.num_frm if trains else evaluated
    clip = num_frames * 3 * config.crop_img_size**2  # bytes
    # Each worker reads the clips of one video at a time, before they are cropped.
    side = getattr(config, "resize_size", config.crop_img_size)
    read = max(1, config.n_workers) * num_clips * num_frames * 3 * side**2
    # Count the clips that are encoded at once, with what the backward pass keeps of them.
    chunk = getattr(config, "grad_cache_size", 0) if trains else 0
    at_once = batch * num_clips if trains else batch
    at_once = min(at_once, chunk or at_once)
    kept = 0
    if trains and not config.freeze:  # frozen layers keep less
        kept = experiment.family.kept_bytes(config, experiment.resolved.architecture)
    # Frames are bytes in the loader and floats on the device.
    wanted = {torch.device("cpu"): num_loaded * batch * num_clips * clip + read}
    wanted[device] = wanted.get(device, 0) + at_once * (clip * BYTES_OF_FLOAT + kept)
    for place, num_bytes in wanted.items():
        if lack := _lack(num_bytes, place):
            frames_key = "num_frm" if num_frames == config.num_frm else "test_num_frm"
            keys = [frames_key, "crop_img_size", size_key, "n_workers"]
            keys += ["train_n_clips" if trains else "inference_n_clips"] * (num_clips > 1)
            keys += ["resize_size"] * hasattr(config, "resize_size")
            values = ", ".join(f"{key} {getattr(config, key)}" for key in keys)
            raise InputError(
                f"{values}: the frames of a batch and of those read ahead take at least {lack}."
                " Lower what is too large, or use a machine with more memory."
            )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _lack(num_bytes: float, device: torch.device) -> str | None:
    """Describe the memory wanted and free; None if there is enough."""
    free = free_memory(device)
    if num_bytes <= free:
        return None
    return f"{num_bytes / 1e9:,.1f} GB of memory; {free / 1e9:,.1f} GB are free ({device})"


def _model_keys(experiment: Experiment[Any]) -> str:
    """Name the keys that determine the size of a model, with their values."""
    config = experiment.config
    shown = [
        f"{', '.join(f'{key} {getattr(content, key):g}' for key in content.SIZE_KEYS)} in "
        f"{getattr(config, file_key)}"
        for file_key, content in experiment.resolved.architecture.items()
    ]
    entities = f"; num_entities {config.num_entities}" if hasattr(config, "num_entities") else ""
    return f"Its size follows from {'; '.join(shown)}{entities}: lower what is too large."


def free_memory(device: torch.device) -> float:
    """Bytes that this process may still take on a device; infinite where the system is silent."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([*_system_memory(), *_memory_of_cgroups(), *_address_space()], default=math.inf)


def _system_memory(proc: Path = Path("/proc")) -> Iterator[int]:
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) << 10


def _address_space() -> Iterator[int]:
    """Yield the bytes left below the limit of ``ulimit -v``."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _lines(Path("/proc/self/statm"))
    if limit != resource.RLIM_INFINITY and used:
        yield limit - int(used[0].split()[0]) * resource.getpagesize()


def _memory_of_cgroups(
    proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Yield the bytes left below the limits of containers and jobs, versions 1 and 2."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in _LIMITS_OF_CGROUPS.keys() & set(controllers.split(",")):
            folder, limit_name, use_name = _LIMITS_OF_CGROUPS[controller]
            top = cgroups / folder
            own = top / path.lstrip("/")
            for group in (own, *own.parents):  # a group's limit is one of those below it
                if not group.is_relative_to(top):
                    break
                limit, use = _lines(group / limit_name), _lines(group / use_name)
                if limit and use and limit[0].isdecimal():
                    yield int(limit[0]) - int(use[0]) + _cache(group)


def _cache(group: Path) -> int:
    parts = dict(line.split() for line in _lines(group / "memory.stat") if line.count(" ") == 1)
    return sum(int(parts.get(f"total_{name}", parts.get(name, 0))) for name in _CACHES)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
