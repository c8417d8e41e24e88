"""A tiny CLIP, written once, and an experiment with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.families.clip_vip.tiny_clip import ClipVipExperiment, write_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CLIP as transformers writes it."""
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def experiment(tmp_path: Path, clip: Path) -> ClipVipExperiment:
    """An experiment of retrieval in a folder of its own."""
    return ClipVipExperiment(tmp_path, clip=clip)
