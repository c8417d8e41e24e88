"""Golden cases of CLIP-ViP's model: features, gradients, and updates on one repeated batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from alpro.families.clip_vip.family import parameter_groups
from alpro.families.clip_vip.losses import GlobalFeatures, global_loss
from alpro.families.clip_vip.model import ClipVip
from alpro.modeling.state_dict_adapter import POSITION_IDS
from alpro.optimization.optimizer import (
    build_optimizer,
    learning_rate_at,
    set_learning_rate,
)
from tests.families.clip_vip.models import build_clip_vip
from tests.parity.golden import Case, fill
from tests.parity.report import (
    SUM_TOLERANCE,
    Finding,
    compare_array,
    compare_gradients,
    compare_keys,
)

SERIES_TOLERANCE = 1e-3  # of losses and gradient norms over several updates
UPDATE_TOLERANCE = 1e-4  # of the tensors after them
NOISE = ("k_proj.bias",)  # its gradient is zero but for rounding
RETRIEVAL_LOSS, PRETRAINING_LOSS = "NCELearnableTempLoss", "NCELearnableTempLoss_vsc_fc"
PRETRAINING_SCALE = 5.5  # log, above the bound


def check_clip_vip_model(case: Case) -> list[Finding]:
    """Features of a small model: videos of several lengths, frames, texts, and two variants."""
    model = clip_vip_model(case.facts["config"])
    findings = _fill(case, model)
    with torch.inference_mode():
        outputs = {f"t{t}_vis_features": _video(model, case, f"t{t}") for t in (4, 6, 1, 9)}
        outputs |= _texts_and_frames(model, case) | _hidden_states(model, case)
        findings += [compare_array(case.name, k, x, case.arrays[k]) for k, x in outputs.items()]
        # Variants, which lack keys.
        variants: dict[str, tuple[Sequence[int], dict[str, bool]]] = {
            "without_temporal": ((4,), {"if_use_temporal_embed": False}),
            "plain": ((4, 6, 1), {"plain": True}),
        }
        for variant, (lengths, options) in variants.items():
            model = clip_vip_model(case.facts["config"], **options)
            findings += _fill(case, model, f"_{variant}")
            for t in lengths:
                name = f"{variant.replace('without', 'no')}_t{t}_vis_features"
                features = _video(model, case, f"t{t}")
                findings.append(compare_array(case.name, name, features, case.arrays[name]))
    return findings


@torch.inference_mode()
def check_clip_vip_full(case: Case) -> list[Finding]:
    """Features of both models of the published sizes."""
    findings, config = [], case.facts["config"]
    for patch_size in (32, 16):
        vision = config["vision"] | {"patch": patch_size}
        model = clip_vip_model(config | {"vision": vision})
        total, name = fill(model), f"b{patch_size}"
        keys = case.facts["keys"] | (case.facts["keys_b16_differences"] if name == "b16" else {})
        findings += _compare_state(case, model, total, keys, f"weights_sum_{name}")
        key = f"{name}_vis_features"
        video = model.encode_video(_input(case, "video")).embedding
        text = model.encode_text(case.tensor("text_input_ids"), case.tensor("text_input_mask"))
        findings += [
            compare_array(case.name, key, video, case.arrays[key]),
            compare_array(case.name, f"{name}: text", text.embedding, case.arrays["text_features"]),
        ]
    return findings


def check_clip_vip_train(case: Case) -> list[Finding]:
    """Losses and gradients of retrieval, pretraining and the plain mode, then the updates."""
    findings = []
    runs: tuple[tuple[str, str, str, bool], ...] = (
        ("vsc_fc", "grads", PRETRAINING_LOSS, False),
        ("nce", "grads_nce", RETRIEVAL_LOSS, False),
        ("nce_plain", "grads_nce_plain", RETRIEVAL_LOSS, True),
    )
    for key, gradients, loss_name, plain in runs:
        model = clip_vip_model(case.facts["config"], plain=plain)
        fill(model)
        loss = _loss(model, case, loss_name)
        loss.backward()
        reference = case.facts[gradients]
        findings += [
            compare_array(case.name, key, loss, case.facts["losses"][key]),
            compare_gradients(case.name, model, reference, noise=NOISE, quantity=gradients),
        ]
    return findings + _check_updates(case, "retrieval") + _check_updates(case, "pretrain")


def _check_updates(case: Case, stage: str) -> list[Finding]:
    """Eight updates on one batch; the scale is clamped after or before the forward pass."""
    steps, pretrains = case.facts["steps"], stage == "pretrain"
    model = clip_vip_model(case.facts["config"])
    fill(model)
    if pretrains:
        model.logit_scale.data.fill_(PRETRAINING_SCALE)
    keys = ("lr_mul_prefix", "lr_mul", "weight_decay")
    config = SimpleNamespace(**{key: steps[key] for key in keys})
    optimizer = build_optimizer(
        parameter_groups(model, config),
        algorithm="adamw_decay_last",
        learning_rate=steps["learning_rate"],
        betas=tuple(steps["betas"]),
    )
    series: dict[str, list[float]] = {"loss": [], "grad_norm": [], "lr": [], "logit_scale": []}
    for step in range(1, steps["num_steps"] + 1):
        # Forward and backward pass.
        if pretrains:
            model.clamp_temperature()
        loss = _loss(model, case, PRETRAINING_LOSS if pretrains else RETRIEVAL_LOSS)
        if not pretrains:
            model.clamp_temperature()
        optimizer.zero_grad()
        loss.backward()
        # Update.
        rate = learning_rate_at(
            step,
            decay=steps["decay"],
            learning_rate=steps["learning_rate"],
            num_train_steps=steps["total"],
            warmup_ratio=steps["warmup_ratio"],
        )
        set_learning_rate(optimizer, rate)
        norm = clip_grad_norm_(model.parameters(), steps["grad_norm"])
        optimizer.step()
        values = (loss.item(), norm.item(), rate, model.logit_scale.item())
        for key, value in zip(series, values, strict=True):
            series[key].append(value)
    return _compare_updates(case, stage, series, model)


def _compare_updates(
    case: Case, stage: str, series: Mapping[str, list[float]], model: ClipVip
) -> list[Finding]:
    """Each series, then some tensors and the norms of all."""
    tolerances = dict.fromkeys(("loss", "grad_norm"), SERIES_TOLERANCE) | {"lr": 0.0}
    findings = [
        _relative(case, f"steps_{stage}/{key}", values, tolerance=tolerances.get(key, 1e-5))
        for key, values in series.items()
    ]
    state, start = model.state_dict(), f"steps_{stage}/after/"
    findings += [
        compare_array(
            case.name, key, state[key.removeprefix(start)], array, tolerance=UPDATE_TOLERANCE
        )
        for key, array in case.arrays.items()
        if key.startswith(start)
    ]
    norms = {k: x for k, x in case.facts[f"norms_after_{stage}"].items() if not k.endswith(NOISE)}
    errors = [abs(float(state[name].double().norm()) / norm - 1) for name, norm in norms.items()]
    return [
        *findings,
        Finding(case.name, f"norms_after_{stage}", max(errors), UPDATE_TOLERANCE),
    ]


def _relative(case: Case, key: str, values: Sequence[float], *, tolerance: float) -> Finding:
    """Largest relative error of a series of numbers of different sizes."""
    reference = case.arrays[key]
    error = float(np.abs(np.array(values) / reference - 1).max())
    return Finding(case.name, key, error, max(tolerance, 1e-14), f"{len(reference)} updates")


def clip_vip_model(config: Mapping[str, Any], **options: bool) -> ClipVip:
    """The model of a case's ``config``, in evaluation mode."""
    vision, text = config["vision"], config["text"]
    return build_clip_vip(
        **_tower("vision", vision),
        **_tower("text", text),
        image_size=vision["img"],
        patch_size=vision["patch"],
        vocab_size=text["vocab"],
        max_position_embeddings=text["positions"],
        projection_dim=config["projection"],
        add_cls_num=config["add_cls_num"],
        temporal_size=config["temporal_size"],
        **options,
    ).eval()


def _tower(tower: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    return {
        f"{tower}_hidden_size": sizes["width"],
        f"{tower}_num_hidden_layers": sizes["layers"],
        f"{tower}_num_attention_heads": sizes["heads"],
        f"{tower}_intermediate_size": sizes["inter"],
    }


def _loss(model: ClipVip, case: Case, name: str) -> Tensor:
    frames, captions = _input(case, "image").flatten(0, 1).unsqueeze(1), None
    text = model.encode_text(case.tensor("text_input_ids"), case.tensor("text_input_mask"))
    features = GlobalFeatures(model.encode_video(_input(case, "video")).embedding, text.embedding)
    if name == PRETRAINING_LOSS:
        captions = model.encode_text(*_captions(case)).embedding
        images = model.encode_video(frames).embedding
        features = features._replace(images=images, captions=captions)
    return global_loss(name, {})(features, model.temperature())


def _captions(case: Case) -> tuple[Tensor, Tensor]:
    """Ids and mask, sample by sample."""
    return case.tensor("caption_ids").flatten(0, 1), case.tensor("caption_masks").flatten(0, 1)


def _texts_and_frames(model: ClipVip, case: Case) -> dict[str, Tensor]:
    """Texts, captions, and frames as videos of one frame."""
    text = model.encode_text(case.tensor("text_input_ids"), case.tensor("text_input_mask"))
    frames = _input(case, "image").flatten(0, 1).unsqueeze(1)  # (B*n, 1, 3, H, W)
    return {
        "text_features": text.embedding,
        "cap_features": model.encode_text(*_captions(case)).embedding,
        "img_features": model.encode_video(frames).embedding,
    }


def _hidden_states(model: ClipVip, case: Case) -> dict[str, Tensor]:
    """Intermediate states, for finding a fault."""
    text_model: Callable[..., Any] = model.clipmodel.text_model
    ids, mask = case.tensor("text_input_ids"), case.tensor("text_input_mask")
    return {
        "t4_embeddings": model.clipmodel.vision_model.embed(_input(case, "video_t4")[:1]),
        "text_last_hidden": text_model(input_ids=ids, attention_mask=mask).last_hidden_state,
    }


def _video(model: ClipVip, case: Case, name: str) -> Tensor:
    return model.encode_video(_input(case, f"video_{name}")).embedding


def _input(case: Case, name: str) -> Tensor:
    """Frames of normally distributed numbers."""
    facts = case.facts["inputs"][name]
    rng = np.random.default_rng(facts["rng"])
    return torch.from_numpy(rng.standard_normal(facts["shape"], dtype=np.float32))


def _fill(case: Case, model: ClipVip, variant: str = "") -> list[Finding]:
    total = fill(model)
    absent = case.facts.get(f"keys_absent{variant}", ())
    keys = {key: shape for key, shape in case.facts["keys"].items() if key not in absent}
    return _compare_state(case, model, total, keys, f"weights_sum{variant}")


def _compare_state(
    case: Case, model: ClipVip, total: float, keys: Mapping[str, Sequence[int]], sum_key: str
) -> list[Finding]:
    """Names and sum of the weights; transformers has no position ids any more."""
    keys = {key: shape for key, shape in keys.items() if not key.endswith(POSITION_IDS)}
    return [
        compare_keys(case.name, model.state_dict(), keys),
        compare_array(case.name, sum_key, total, case.facts[sum_key], tolerance=SUM_TOLERANCE),
    ]
