"""The only list of tasks, by their config classes, and detection of a config file's task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpro.configs.experiment import ExperimentConfig
from alpro.configs.family import with_family
from alpro.configs.fields import fields_of
from alpro.tasks.pretraining.config import PostPretrainConfig, PretrainConfig, PrompterConfig
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig

TASKS: dict[str, type[ExperimentConfig]] = {
    config_class.TASK: config_class
    for config_class in (
        RetrievalConfig,
        QaConfig,
        PrompterConfig,
        PretrainConfig,
        PostPretrainConfig,
    )
}
_QUESTION_KEYS = ("ans2label_path", "task")
"""Keys of question answering alone."""
_SETS = ("train_datasets", "val_datasets", "test_datasets")
_LOSSES = ("use_itm", "use_mlm", "use_mpm")
"""Of pretraining, but not of the prompter."""


def kind_of(raw: Mapping[str, Any]) -> type[ExperimentConfig]:
    """Return the config class of a file's raw content."""
    # A stored config names its script; otherwise keys of one task alone decide.
    for config_class in TASKS.values():
        if raw.get("script") == config_class.SCRIPT:
            return config_class
    if any(raw.get(key) for key in _QUESTION_KEYS):
        return QaConfig
    if any("vid_txt" in one or "vid_cap_path" in one for one in _sets_of(raw)):
        return PostPretrainConfig
    if not _is_of_pretraining(raw):
        return RetrievalConfig
    # Of pretraining: the prompter has neither the other losses nor keys for them.
    of_prompter = fields_of(PrompterConfig).keys() | PrompterConfig.INERT
    needs_more = raw.keys() & (fields_of(PretrainConfig).keys() - of_prompter)
    losses = any(raw.get(key) for key in _LOSSES)
    return PretrainConfig if losses or needs_more else PrompterConfig


def script_of_another_kind(raw: Mapping[str, Any], config_class: Any) -> str | None:
    """Return the script of the task that raw values belong to, if it is another one.

    Args:
        raw: content of the config file.
        config_class: class of the started script, with a family's keys.
    """
    # The other script must know all keys; a single unknown key may be a slip.
    kind = with_family(kind_of(raw), config_class.FAMILY)
    num_unknown = len(raw.keys() - _known_keys(config_class))
    is_other = num_unknown > 1 and raw.keys() <= _known_keys(kind)
    return kind.SCRIPT if is_other else None


def _known_keys(config_class: Any) -> set[str]:
    stored = config_class.INERT | config_class.DERIVED | config_class.ALIASES.keys()
    return {*fields_of(config_class), *stored}


def _is_of_pretraining(raw: Mapping[str, Any]) -> bool:
    of_retrieval = fields_of(RetrievalConfig).keys() | RetrievalConfig.INERT
    if raw.keys() & (fields_of(PretrainConfig).keys() - of_retrieval):
        return True
    # Data sets of pretraining have their annotation file under another key than txt.
    return any(not one.get("txt") for one in _sets_of(raw))


def _sets_of(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    sets = [one for key in _SETS if isinstance(raw.get(key), list) for one in raw[key]]
    return [one for one in sets if isinstance(one, dict)]
