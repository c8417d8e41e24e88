"""Real clips in place of the made-up videos of the experiments."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.datasets.clips import write_frames

NUM_FRAMES, SIDE = 6, 32


def write_noisy_clip(path: Path, *, seed: int, num_frames: int = NUM_FRAMES) -> Path:
    """Write a clip of noise, another one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (num_frames, SIDE, SIDE, 3), dtype=np.uint8)
    return write_frames(path, frames)


def replace_videos(folder: Path) -> None:
    """Write a clip of its own in place of each file of a folder."""
    for seed, path in enumerate(sorted(folder.iterdir())):
        write_noisy_clip(path, seed=seed)
