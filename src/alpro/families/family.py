"""The contract of a model family; `registry` lists the families.

The framework knows nothing of a family but its `FAMILY`, one `ModelFamily`, and asks its models for
roles (`alpro.modeling.contracts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from alpro.configs.experiment import ExperimentConfig
from alpro.datasets.tokenization import TokenizerFormat
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.modeling.state_dict_adapter import StateDict
from alpro.optimization.optimizer import ParameterGroup, decay_and_no_decay

Architecture = Mapping[str, Any]
"""Config key of each file of the model -> its content, of the class of the family's config."""
Prepare = Callable[[StateDict], StateDict]
"""Checks the tensors of a checkpoint file and selects those that the model takes."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFormat:
    """The family's own checkpoints (``e2e_weights_path``), fitted to a model of it."""

    roots: Sequence[str]
    """First parts of all names; prefixes before them come from wrapping."""
    files: Sequence[str]
    """Keys of the files that determine the model, for messages."""
    adapt: Callable[[StateDict, Mapping[str, Tensor]], StateDict]
    """From (checkpoint, ``model.state_dict()``): renamed, resized, without other tasks' heads;
    unknown tensors are passed on, and refused. `InputError` for other sizes."""
    describe: Callable[[StateDict, Mapping[str, Tensor]], Sequence[str]] = lambda _state, _model: ()
    """Sentences for the log on what `adapt` does."""
    never_used: tuple[str, ...] = ()
    """Patterns of parameters that a checkpoint may lack, since nothing reads them."""


@dataclass(frozen=True, kw_only=True)
class StartingWeights:
    """Weights of a model's parts, where there is no checkpoint of the whole."""

    load: Callable[[nn.Module, Any], bool]
    """From (model, config): fill the model from the config's files; False if it names none."""
    missing: Callable[[Any], list[str]]
    """From the config: sentences about missing or unreadable files."""
    remedy: str
    """For the error that there is nothing to start from: ``name ... as visual_weights_path``."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task of the family."""

    definition: Callable[[Any], Any]
    """Makes the `TaskDefinition` of an experiment."""
    build_model: Callable[..., nn.Module]
    """From (config, architecture), and for question answering ``num_labels``: random weights."""
    allowed_missing: tuple[str, ...] = ()
    """Patterns of parameters that the checkpoint of another task may lack."""


def squashed_frames(config: ExperimentConfig) -> PixelPreprocessing:
    """Preprocessing by a config's size, mean and std: videos are squashed."""
    return PixelPreprocessing(
        size=config.crop_img_size, mean=config.img_pixel_mean, std=config.img_pixel_std
    )


def central_squares(config: ExperimentConfig) -> PixelPreprocessing:
    """Preprocessing by a config's size, mean and std: images are cropped."""
    return replace(squashed_frames(config), resize="center_square", interpolation="bicubic")


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """Models, weights, tokenizer and tasks of a family."""

    tasks: Mapping[str, str]
    """Name, as ``TASK`` of the configs -> module with its `TASK`, a `TaskSpec`; imported on use."""
    tokenizer: TokenizerFormat
    """Of the files in ``tokenizer_dir``."""
    vocab_size: Callable[[Architecture], int]
    """Tokens that the model knows."""
    preprocessing: Callable[[Any], PixelPreprocessing] = squashed_frames
    """Of the frames of videos, from the config."""
    image_preprocessing: Callable[[Any], PixelPreprocessing] = central_squares
    """Of still images, from the config; the range of values is that of `preprocessing`."""
    checkpoint: CheckpointFormat
    starting_weights: StartingWeights
    parameter_groups: Callable[[nn.Module, ExperimentConfig], list[ParameterGroup]] = (
        lambda model, config: decay_and_no_decay(model, weight_decay=config.weight_decay)
    )
    """Trainable parameters with the scale of their learning rate and their weight decay."""
    kept_bytes: Callable[[ExperimentConfig, Architecture], int] = lambda _config, _files: 0
    """Bytes that encoding a clip keeps for the backward pass, at least."""

    def load_task(self, name: str) -> TaskSpec:
        """Return one of `tasks`."""
        return import_module(self.tasks[name]).TASK
