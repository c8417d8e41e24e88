"""Golden cases of CLIP-ViP's losses on given features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from alpro.families.clip_vip.losses import GlobalFeatures, global_loss
from tests.parity.golden import Case
from tests.parity.report import Finding, compare_array

FIELDS = {"vis": "videos", "text": "subtitles", "img": "images", "cap": "captions"}


def check_clip_vip_losses(case: Case) -> list[Finding]:
    """Each loss, and its gradients to the features and to the log of the scale."""
    findings = []
    for name, facts in case.facts["cases"].items():
        findings += [
            compare_array(case.name, f"{name}/{quantity}", ours, case.arrays[f"{name}/{quantity}"])
            for quantity, ours in _loss_and_gradients(case, facts).items()
        ]
    return findings


def _loss_and_gradients(case: Case, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    # Features of another count have a suffix: text_k, img_n, cap_n.
    inputs = {key: case.tensor(key).requires_grad_() for key in facts["inputs"]}
    logit_scale = torch.tensor(case.facts["config"]["scale"], requires_grad=True)
    features = GlobalFeatures(**{FIELDS[key.split("_")[0]]: x for key, x in inputs.items()})
    compute = global_loss(facts["loss_name"], facts.get("loss_config", {}))
    loss = compute(features, (-logit_scale).exp())
    loss.backward()
    # What the loss does not use has no gradient at all.
    leaves = inputs | {"logit_scale": logit_scale}
    gradients = {f"grad_{key}": x.grad for key, x in leaves.items() if x.grad is not None}
    unused = {*facts["no_grad"]} if facts["logit_scale"] else {*facts["no_grad"], "logit_scale"}
    assert gradients.keys() == {f"grad_{key}" for key in leaves.keys() - unused}
    return {key: x.detach().numpy() for key, x in {"loss": loss, **gradients}.items()}
