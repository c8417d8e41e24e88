"""The only list of model families.

A family is a package with two modules, each imported on use: ``config`` (quick to import) has its
`CONFIG`, ``family`` its `FAMILY`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alpro.configs.family import FamilyConfig
    from alpro.families.family import ModelFamily

FAMILIES = {"alpro": "alpro.families.alpro", "clip_vip": "alpro.families.clip_vip"}
"""Name in a config (key ``family``) -> package."""
DEFAULT_FAMILY = "alpro"


def family_config(name: str) -> FamilyConfig:
    """Return a family's additions to a config."""
    return import_module(f"{FAMILIES[name]}.config").CONFIG


def load_family(name: str) -> ModelFamily:
    """Return a family's models, weights and tasks."""
    return import_module(f"{FAMILIES[name]}.family").FAMILY
