"""CLIP-ViP's numbers around the model: evaluation, frames, texts, optimization."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from alpro.datasets.frame_sampling import clip_indices
from alpro.datasets.tokenization import CLIP_BPE, load_tokenizer, tokenize
from alpro.datasets.transforms.normalize import Normalize
from alpro.datasets.transforms.preprocessing import PixelPreprocessing, resize_frames
from alpro.families.clip_vip.family import parameter_groups
from alpro.optimization.optimizer import learning_rate_at
from alpro.tasks.retrieval.metrics import dual_softmax, dual_softmax_metrics, retrieval_metrics
from tests.parity.golden import Case
from tests.parity.report import Finding, compare_array

VOCABULARY = Path(__file__).parents[2] / "ext/clip-bpe"
VOCAB_SIZE = 49408
_RECALLS = ("r1", "r5", "r10")


def check_evaluation(case: Case) -> list[Finding]:
    """All of a case but what differs on purpose: metrics with ties, and ``multi_step``."""
    return [
        finding
        for check in (_metrics, _frames, _learning_rates, _groups, _pixels, _tokens)
        for finding in check(case)
    ]


def _equal(case: Case, quantity: str, ours: Any, reference: Any) -> Finding:
    return Finding(case.name, quantity, 0.0 if ours == reference else float("inf"), 0.0)


def _metrics(case: Case) -> Iterator[Finding]:
    arrays = case.arrays
    cosine = arrays["text_features"] @ arrays["vis_features"].T
    yield compare_array(case.name, "similarity", cosine, arrays["sim_text_by_video"])
    dsl = dual_softmax(cosine, axis=0)
    yield compare_array(case.name, "dual softmax", dsl, arrays["dsl_text_by_video"])
    # The original's video-to-text numbers are always those without DSL: it normalises over texts.
    pairs = range(len(cosine))
    simple = retrieval_metrics(cosine, pairs)
    with_dsl = simple | {"text2video": dual_softmax_metrics(cosine, pairs)["text2video"]}
    for name, ours in (("metrics_simple", simple), ("metrics_dsl", with_dsl)):
        figures = [
            figure
            for way in ("text2video", "video2text")
            for figure in (
                *(ours[way][key] / 100 for key in _RECALLS),
                ours[way]["medianR"],
                ours[way]["meanR"],
            )
        ]
        yield compare_array(case.name, name, np.array(figures), arrays[name])


class _NumpyDraws(np.random.Generator):
    """Draws of NumPy's global generator, as the original makes them."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self._draws = np.random.RandomState(seed)

    def integers(self, low: int, high: int, size: Any = None) -> Any:  # type: ignore[override]
        """Draw from [low, high)."""
        return self._draws.randint(low, high, size)


def _frames(case: Case) -> Iterator[Finding]:
    for name in ("sampling_linspace", "sampling_rate"):
        wrong = [
            row
            for one in case.facts[name]
            for row, strategy, expected, rng in _draws(one)
            if _chosen(one, strategy, rng) != expected
        ]
        note = f"{len(case.facts[name])} settings; {len(wrong)} differ"
        yield Finding(case.name, name, float(len(wrong)), 0.0, note)


def _draws(one: dict[str, Any]) -> Iterator[tuple[Any, str, list[int], np.random.Generator | None]]:
    if "sample_rate" in one:
        yield one, "interval", one["index"], _NumpyDraws(one["seed"])
        return
    yield one, "linspace", one["eval"], None
    for draw in one["train"]:
        yield draw, "linspace_jitter", draw["index"], _NumpyDraws(draw["seed"])


def _chosen(one: dict[str, Any], strategy: str, rng: np.random.Generator | None) -> list[int]:
    return (
        clip_indices(
            strategy,
            num_video_frames=one["frames"],
            num_frames=one["num_frms"],
            num_clips=one["n_clips"],
            sample_rate=one.get("sample_rate", 0),
            rng=rng,
        )
        .ravel()
        .tolist()
    )


def _learning_rates(case: Case) -> Iterator[Finding]:
    config = case.facts["config"]
    for key, decay, first, warmup in (
        ("cosine", "cosine", 0, config["warm"]),
        ("cosine_no_warmup", "cosine", 0, 0.0),
        ("linear", "linear", 0, config["warm"]),
        ("constant", "constant", 0, config["warm"]),
        ("invsqrt", "invsqrt", 1, config["warm"]),
    ):
        expected = case.arrays[f"schedule_{key}"]
        rates = [
            learning_rate_at(
                step,
                decay=decay,
                learning_rate=config["lr"],
                num_train_steps=config["total"],
                warmup_ratio=warmup,
            )
            for step in range(first, first + len(expected))
        ]
        name = f"schedule_{key}"
        yield compare_array(case.name, name, np.array(rates), expected, tolerance=1e-12)


def _groups(case: Case) -> Iterator[Finding]:
    settings = case.facts["optimizer"]
    model = _module_of([*settings["default"]["decay"], *settings["default"]["no_decay"]])
    names = {parameter: name for name, parameter in model.named_parameters()}
    for name in ("default", "lr_mul_logit_scale", "lr_mul_vision"):
        setting = settings[name]
        config = SimpleNamespace(
            weight_decay=setting["weight_decay"][0],
            lr_mul_prefix=setting["lr_mul_prefix"],
            lr_mul=setting["lr_mul"],
        )
        # Groups without parameters, which the original has too, are not made.
        filled = [index for index, count in enumerate(setting["count"]) if count]
        groups = dict(zip(filled, parameter_groups(model, config), strict=True))
        members = {i: sorted(names[one] for one in groups[i].parameters) for i in filled}
        sizes = [len(members.get(i, [])) for i in range(len(setting["count"]))]
        yield _equal(case, f"{name}: sizes", sizes, setting["count"])
        for i, group in groups.items():
            yield _equal(case, f"{name}: decay", group.weight_decay, setting["weight_decay"][i])
            rates = np.array(1e-6 * group.lr_scale), np.array(setting["lr"][i])
            yield compare_array(case.name, f"{name}: rates", *rates)
        if "decay" in setting:
            expected = {2: sorted(setting["decay"]), 3: sorted(setting["no_decay"])}
            yield _equal(case, f"{name}: names", members, expected)
        for i, own in enumerate(setting.get("groups_0_1", ())):
            yield _equal(case, f"{name}: names", members.get(i, []), own)


def _module_of(names: list[str]) -> nn.Module:
    """A module with parameters of these full names."""
    root = nn.Module()
    for name in names:
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(torch.zeros(1)))
    return root


def _pixels(case: Case) -> Iterator[Finding]:
    frames = case.arrays["transform_input"]
    for size in (24, 48):
        for antialias in (False, True):
            name = f"transform_{size}" + "_antialias" * antialias
            yield compare_array(
                case.name, name, transformed(frames, size, antialias), case.arrays[name]
            )


def transformed(frames: np.ndarray, size: int, antialias: bool) -> np.ndarray:
    """Frames as the model gets them, but for the rounding to 8 bits in between."""
    preprocessing = PixelPreprocessing(size=size)
    resized = resize_frames(
        frames, height=size, width=size, interpolation="bicubic", antialias=antialias
    )
    return Normalize(preprocessing.mean, preprocessing.std)(torch.tensor(resized)).numpy()


def _tokens(case: Case) -> Iterator[Finding]:
    tokenizer = load_tokenizer(VOCABULARY, vocab_size=VOCAB_SIZE, layout=CLIP_BPE)
    ids, mask = tokenize(tokenizer, case.facts["sentences"], max_length=case.facts["max_txt_len"])
    yield _equal(case, "token_ids", ids.tolist(), case.arrays["token_ids"].tolist())
    yield _equal(case, "token_mask", mask.tolist(), case.arrays["token_mask"].tolist())
