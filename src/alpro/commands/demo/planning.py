"""Assignment of scenes to splits: pairs of clips that differ only in time.

The two clips of a pair show the same things. In the evaluation splits the second clip is the first
one played backwards, so a model that ignores time cannot tell them apart, and a reversed clip looks
exactly like its sibling. In the splits for training, the order of the two events is sometimes
swapped instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alpro.commands.demo.captions import draw_captions
from alpro.commands.demo.noise import VIDEO_WRAPPERS, web_captions
from alpro.commands.demo.rendering import render
from alpro.commands.demo.scenes import KIND_SHARES, KINDS, Action, Scene, SceneKey, draw_scene
from alpro.commands.demo.trajectories import SIZE, Track, event_spans, stage
from alpro.errors import InputError

SPLITS = ("pretrain", "train", "val", "test")
TRAINING_SPLITS = ("pretrain", "train")
STREAMS = {"pretrain": 0, "val": 1, "test": 2, "train": 3}
"""Split -> key of its stream of random numbers."""
NOISE_STREAM = 5
NUM_CAPTIONS = {"pretrain": 3, "train": 3, "val": 1, "test": 1}
SWAPPED_SHARE = 0.5
"""Share of the training pairs with two events in a row whose sibling has their order swapped."""
MAX_DRAWS = 20_000
"""Draws without a usable scene after which a split is declared too large for this world."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip to be rendered."""

    name: str
    scene: Scene
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sibling clips of the same look; ``seed`` determines all randomness."""

    split: str
    clips: tuple[Clip, Clip]
    swapped: bool
    seed: tuple[int, ...]

    def stage(self) -> list[list[Track]]:
        """Return the tracks of both clips."""
        first = stage(self.clips[0].scene, rng=np.random.default_rng([*self.seed, 1]))
        if self.swapped:
            rng = np.random.default_rng([*self.seed, 1])
            return [first, stage(self.clips[1].scene, rng=rng)]
        return [first, [track.backwards() for track in first]]

    def render(self) -> list[np.ndarray]:
        """Draw both clips: two arrays uint8 (T, S, S, 3)."""
        first, second = self.stage()
        frames = self._render(0, first)
        return [frames, self._render(1, second) if self.swapped else frames[::-1]]

    def _render(self, number: int, tracks: list[Track]) -> np.ndarray:
        rng = np.random.default_rng([*self.seed, 2])
        scene = self.clips[number].scene
        return render(scene, tracks, rng=rng)


def plan_dataset(*, num_pairs: dict[str, int], seed: int) -> list[Pair]:
    """Plan all splits; no scene occurs in two of them, and evaluation captions are unambiguous.

    Raises:
        InputError: the evaluation splits ask for more scenes than there are.
    """
    # The test set comes first, so that it does not depend on the other splits.
    test = _draw_evaluation_scenes("test", num_pairs["test"], taken=set(), seed=seed)
    taken = {key for scene in test for key in _pair_keys(scene)}
    val = _draw_evaluation_scenes("val", num_pairs["val"], taken=taken, seed=seed)
    taken |= {key for scene in val for key in _pair_keys(scene)}
    scenes = {"val": val, "test": test}
    for split in TRAINING_SPLITS:
        scenes[split] = _draw_training_scenes(split, num_pairs[split], taken=taken, seed=seed)
    pairs = {
        split: [_make_pair(split, i, scene, seed=seed) for i, scene in enumerate(scenes[split])]
        for split in SPLITS
    }
    pairs["pretrain"] = _with_noisy_captions(pairs["pretrain"], seed=seed)
    return [pair for split in SPLITS for pair in pairs[split]]


def describe(pair: Pair) -> list[dict[str, Any]]:
    """Return a JSON record per clip: all that was decided about it, for later questions.

    Positions are (x, y) as shares of the picture's size, y downwards; frames count from 0, an
    event's ``end`` is exclusive.
    """
    return [
        {
            "clip_name": clip.name,
            "split": pair.split,
            "kind": clip.scene.kind,
            "background": clip.scene.background,
            "things": [
                {
                    "color": thing.color,
                    "shape": thing.shape,
                    "start": _position(track, 0),
                    "end": _position(track, -1),
                }
                for thing, track in zip(clip.scene.things, tracks, strict=True)
            ],
            "events": [
                {"thing": event.thing, "action": event.action, "begin": begin, "end": end}
                for event, (begin, end) in zip(
                    clip.scene.events, event_spans(clip.scene), strict=True
                )
            ],
            "captions": list(clip.captions),
        }
        for clip, tracks in zip(pair.clips, pair.stage(), strict=True)
    ]


def _position(track: Track, frame: int) -> list[float]:
    return [round(float(path[frame]) / SIZE, 3) for path in (track.x, track.y)]


def _pair_keys(scene: Scene) -> set[SceneKey]:
    return {scene.key, scene.mirrored().key}


def _kinds_of(num_pairs: int) -> list[str]:
    """Return the kind of each pair of a split, in the proportions of ``KIND_SHARES``."""
    positions = (np.arange(num_pairs) + 0.5) / max(num_pairs, 1)
    numbers = np.searchsorted(np.cumsum(KIND_SHARES), positions)
    return [KINDS[min(number, len(KINDS) - 1)] for number in numbers]


def _draw_evaluation_scenes(
    split: str, num_pairs: int, *, taken: set[SceneKey], seed: int
) -> list[Scene]:
    """Draw one scene per pair, such that no caption of the split describes a second clip of it."""
    rng = np.random.default_rng([seed, STREAMS[split]])
    keys = set(taken)
    single_deeds: set[Action] = set()
    other_deeds: set[Action] = set()
    scenes: list[Scene] = []
    for kind in _kinds_of(num_pairs):
        for _ in range(MAX_DRAWS):
            scene = draw_scene(kind, rng=rng)
            deeds = {*scene.deeds, *scene.mirrored().deeds}
            # "a red square grows" would also be true of a clip in which it grows and then blinks.
            also_seen = other_deeds if kind == "single" else single_deeds
            if not (_pair_keys(scene) & keys or deeds & also_seen):
                break
        else:
            raise InputError(
                f"--num_{split}_pairs {num_pairs}: there are not that many scenes that differ from"
                f" each other and from the test set; choose a smaller number"
            )
        keys |= _pair_keys(scene)
        (single_deeds if kind == "single" else other_deeds).update(deeds)
        scenes.append(scene)
    return scenes


def _draw_training_scenes(
    split: str, num_pairs: int, *, taken: set[SceneKey], seed: int
) -> list[Scene]:
    rng = np.random.default_rng([seed, STREAMS[split]])
    scenes: list[Scene] = []
    for kind in _kinds_of(num_pairs):
        for _ in range(MAX_DRAWS):
            scene = draw_scene(kind, rng=rng)
            if not (_pair_keys(scene) | {scene.swapped().key}) & taken:
                break
        else:
            raise InputError(
                f"no scene of the kind {kind!r} is left for --num_{split}_pairs {num_pairs}:"
                " choose smaller --num_val_pairs and --num_test_pairs"
            )
        scenes.append(scene)
    return scenes


def _make_pair(split: str, number: int, scene: Scene, *, seed: int) -> Pair:
    pair_seed = (seed, STREAMS[split], number)
    rng = np.random.default_rng([*pair_seed, 0])
    # Swapped order needs two events in a row.
    in_a_row = scene.kind in ("then", "turns")
    swapped = split in TRAINING_SPLITS and in_a_row and bool(rng.random() < SWAPPED_SHARE)
    sibling = scene.swapped() if swapped else scene.mirrored()
    first, second = (
        Clip(
            name=f"{split}{number:05d}{letter}",
            scene=member,
            captions=draw_captions(member, num_captions=NUM_CAPTIONS[split], rng=rng),
        )
        for letter, member in (("a", scene), ("b", sibling))
    )
    return Pair(split, (first, second), swapped, pair_seed)


def _with_noisy_captions(pairs: list[Pair], *, seed: int) -> list[Pair]:
    """Give the clips of pairs noisy captions."""
    clips = [clip for pair in pairs for clip in pair.clips]
    captions = web_captions(
        [clip.captions for clip in clips],
        backgrounds=[clip.scene.background for clip in clips],
        wrappers=VIDEO_WRAPPERS,
        rng=np.random.default_rng([seed, NOISE_STREAM, len(clips)]),
    )
    noisy = [replace(clip, captions=own) for clip, own in zip(clips, captions, strict=True)]
    return [
        replace(pair, clips=siblings)
        for pair, siblings in zip(pairs, zip(noisy[::2], noisy[1::2], strict=True), strict=True)
    ]
