"""The golden cases that can be checked, each as a function from a case to findings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alpro.families.alpro.checkpoint import adapt_state_dict
from alpro.families.alpro.model import AlproForRetrieval, AlproModel
from alpro.families.alpro.pretraining_model import AlproForPretraining, Prompter, ensemble
from alpro.file_kinds import Media
from alpro.losses import (
    masked_language_loss,
    matching_loss,
    negative_pairs,
    prompted_entity_loss,
    sample_hard_negatives,
    similarity,
    with_positives,
)
from alpro.modeling.contracts import MATCH, TextFeatures, VideoFeatures
from alpro.optimization.optimizer import learning_rate_at
from tests.losses.one_clip import contrastive_loss
from tests.parity.clip_vip import (
    check_clip_vip_full,
    check_clip_vip_model,
    check_clip_vip_train,
)
from tests.parity.clip_vip_evaluation import check_evaluation
from tests.parity.clip_vip_losses import check_clip_vip_losses
from tests.parity.golden import (
    FULL_SIZE,
    Case,
    fill,
    golden_tensor,
    pretraining_model,
    prompter_model,
    question_answering_model,
    retrieval_model,
)
from tests.parity.report import (
    SUM_TOLERANCE,
    Finding,
    compare_array,
    compare_gradients,
    compare_keys,
)

TIME_EMBED = "visual_encoder.model.time_embed"
POS_EMBED = "visual_encoder.model.pos_embed"
MEDIA: dict[Media, str] = {"video": "video", "image": "img"}  # with the original's names
PRETRAINING_LOSSES = ("itc_loss", "itm_loss", "mlm_loss", "mpm_loss")
NO_LABEL = -100  # of a token that was not masked


def check_retrieval(case: Case) -> list[Finding]:
    """Losses, gradients and scores of a small retrieval model."""
    model = retrieval_model(case.facts["config"])
    findings = _fill(case, model)
    video = model.encode_video(case.tensor("train_visual_inputs"))
    text = model.encode_text(
        case.tensor("train_text_input_ids"), case.tensor("train_text_input_mask")
    )
    losses = training_outputs(model, video, text)
    findings += [_compare(case, name, value) for name, value in losses.items()]
    (losses["itc_loss"] + losses["itm_loss"]).backward()
    findings.append(compare_gradients(case.name, model, case.facts["grads"]))
    if "eval_visual_inputs" not in case.arrays:  # left out of the case in the repository, for size
        return findings
    with torch.no_grad():
        video = model.encode_video(case.tensor("eval_visual_inputs"))
        text = model.encode_text(
            case.tensor("eval_text_input_ids"), case.tensor("eval_text_input_mask")
        )
        scores = evaluation_outputs(model, video, text)
    scores |= {"video_embeds": video.tokens, "text_embeds": text.tokens}
    return findings + [_compare(case, name, value) for name, value in scores.items()]


@torch.inference_mode()
def check_full_retrieval(case: Case) -> list[Finding]:
    """Losses and scores of the model of the published size."""
    model = retrieval_model(FULL_SIZE)
    findings = _fill(case, model)
    rng = np.random.default_rng(case.facts["input_rng"])
    size = FULL_SIZE["img"]
    frames = rng.standard_normal((2, FULL_SIZE["frm"], 3, size, size), dtype=np.float32)
    video = model.encode_video(torch.from_numpy(frames))
    text = model.encode_text(case.tensor("text_input_ids"), case.tensor("text_input_mask"))
    outputs = training_outputs(model, video, text) | evaluation_outputs(model, video, text)
    return findings + [_compare(case, name, value) for name, value in outputs.items()]


def check_question_answering(case: Case) -> list[Finding]:
    """Logits, loss and gradients of a small question answering model."""
    model = question_answering_model(case.facts["config"])
    findings = _fill(case, model)
    video = model.encode_video(case.tensor("visual_inputs"))
    text = model.encode_text(case.tensor("text_input_ids"), case.tensor("text_input_mask"))
    logits = model.answer(text, video)
    loss = functional.cross_entropy(logits, case.tensor("labels"))
    loss.backward()
    outputs = {"logits": logits, "loss": loss}
    findings += [_compare(case, name, value) for name, value in outputs.items()]
    return [*findings, compare_gradients(case.name, model, case.facts["grads"])]


def check_prompter(case: Case) -> list[Finding]:
    """Loss and gradients of a small prompter."""
    model = prompter_model(case.facts["config"])
    findings = _fill(case, model)
    video = model.encode_video(case.tensor("visual_inputs"))
    text = model.encode_text(case.tensor("text_input_ids"), case.tensor("text_input_mask"))
    loss = contrast(model, video, text)
    loss.backward()
    findings.append(_compare(case, "itc_loss", loss))
    return [*findings, compare_gradients(case.name, model, case.facts["grads"])]


def check_pretraining(case: Case) -> list[Finding]:
    """Prompts, the four losses and what they are made of for either media, gradients for videos."""
    model = pretraining_model(case.facts["config"])
    findings = _fill(case, model)
    assert model.prompter is not None
    findings += fill_prompts(case, model.prompter)
    for media in MEDIA:
        outputs = pretraining_outputs(case, model, media)
        if media == "video":
            torch.stack([outputs[name] for name in PRETRAINING_LOSSES]).sum().backward()
        for name, value in outputs.items():
            findings.append(_compare(case, f"{MEDIA[media]}_{name}", value))
    return [*findings, compare_gradients(case.name, model, case.facts["grads_video"])]


@torch.no_grad()
def fill_prompts(case: Case, prompter: Prompter) -> list[Finding]:
    """Build the prompter's buffers from the case's own prompts, fewer than there are templates."""
    findings = []
    for media in MEDIA:
        ids, mask = case.tensor(f"{media}_prompt_ids"), case.tensor(f"{media}_prompt_mask")
        embeddings = prompter.encode_text(ids, mask).embedding
        prompts = ensemble(embeddings, num_entities=prompter.num_entities)
        prompter.prompt_embeddings(media).copy_(prompts)
        findings.append(_compare(case, f"{media}_prompt_feat", prompts))
    return findings


def pretraining_outputs(case: Case, model: AlproForPretraining, media: Media) -> dict[str, Tensor]:
    """The four losses of two pairs, whose negatives are each other's, and their logits."""
    assert model.prompter is not None
    video = model.encode_video(case.tensor("visual_inputs"))
    mask = case.tensor("text_input_mask")
    text = model.encode_text(case.tensor("text_input_ids"), mask)
    masked = model.fuse(model.encode_text(case.tensor("mlm_text_input_ids"), mask), video)
    words = model.predict_words(masked, torch.ones_like(mask, dtype=torch.bool))  # (2 * L, V)
    labels = case.tensor("mlm_labels")  # (2, L)
    labelled = labels != NO_LABEL
    region = case.tensor("mpm_mask") == 0  # (2, P, P)
    entities = model.predict_entities(
        model.fuse(text, video), num_text_tokens=mask.shape[1], region=region
    )
    targets = model.prompter.entity_probabilities(case.tensor("crop_visual_inputs"), media)
    outputs = training_outputs(model, video, text)
    outputs["itm_scores"] = outputs.pop("itm_logits")
    return outputs | {
        "mlm_loss": masked_language_loss(model.predict_words(masked, labelled), labels[labelled]),
        "mlm_scores": words.unflatten(0, labels.shape),
        "mpm_loss": prompted_entity_loss(entities, targets, threshold=0.0),
        "mpm_logits": entities,
        "mpm_labels": targets,
    }


def check_resize(case: Case) -> list[Finding]:
    """A checkpoint loaded into a model of more frames and larger images."""
    source = retrieval_model(case.facts["source"]).state_dict()
    state = {key: golden_tensor(key, tuple(source[key].shape)) for key in (TIME_EMBED, POS_EMBED)}
    target = retrieval_model(case.facts["target"]).state_dict()
    adapted = adapt_state_dict(state, target)
    shape_error = 0.0 if adapted[POS_EMBED].shape == target[POS_EMBED].shape else float("inf")
    note = "shape only: we resize the grid bicubically, the original a flattened grid by nearest"
    return [
        compare_array(case.name, "time_embed", adapted[TIME_EMBED], case.arrays["time_embed"]),
        Finding(case.name, "pos_embed", shape_error, 0.0, note),
    ]


def check_schedule(case: Case) -> list[Finding]:
    """Learning rates; ``invsqrt`` is recorded from step 1, the others from step 0."""
    return [
        compare_array(
            case.name,
            decay,
            np.array(
                [
                    learning_rate_at(
                        step,
                        decay=decay,
                        learning_rate=case.facts["learning_rate"],
                        num_train_steps=case.facts["num_train_steps"],
                        warmup_ratio=case.facts["warmup_ratio"],
                    )
                    for step in range(first, first + len(case.arrays[decay]))
                ]
            ),
            case.arrays[decay],
        )
        for decay, first in (("linear", 0), ("constant", 0), ("invsqrt", 1))
    ]


Check = Callable[[Case], list[Finding]]

# By kind: the name of a case without its trailing letter.
_CHECKS: dict[str, Check] = {
    "retrieval": check_retrieval,
    "full_retrieval": check_full_retrieval,
    "qa": check_question_answering,
    "prompter": check_prompter,
    "pretrain": check_pretraining,
    "resize": check_resize,
    "schedule": check_schedule,
    "clipvip_eval": check_evaluation,
    "clipvip_losses": check_clip_vip_losses,
    "clipvip_model": check_clip_vip_model,
    "clipvip_full": check_clip_vip_full,
    "clipvip_train": check_clip_vip_train,
}


def check_of(name: str) -> Check | None:
    """Find the check for a case such as ``retrieval_b``; None if there is none."""
    kind, _, letter = name.rpartition("_")
    return _CHECKS.get(kind) if len(letter) == 1 and letter.isalpha() else None


def training_outputs(
    model: AlproForRetrieval, video: VideoFeatures, text: TextFeatures
) -> dict[str, Tensor]:
    """Both losses and the matching logits of two pairs, whose negatives are each other's."""
    sim_v2t = similarity(video.embedding, text.embedding, temperature=model.temp)  # (2, 2)
    negatives = negative_pairs(*sample_hard_negatives(sim_v2t, sim_v2t.t()))
    pairs = with_positives(negatives, len(sim_v2t))
    logits = model.match(text.select(pairs.texts), video.select(pairs.videos))  # (6, 2)
    itm_loss = matching_loss(logits, len(sim_v2t))
    return {"itc_loss": contrast(model, video, text), "itm_loss": itm_loss, "itm_logits": logits}


def contrast(model: AlproModel, video: VideoFeatures, text: TextFeatures) -> Tensor:
    """The contrastive loss of one process."""
    return contrastive_loss(
        video.embedding,
        text.embedding,
        all_video=video.embedding,
        all_text=text.embedding,
        temperature=model.temp,
    )


def evaluation_outputs(
    model: AlproForRetrieval, video: VideoFeatures, text: TextFeatures
) -> dict[str, Tensor]:
    """Scores (V, C) of all pairs of V videos and C texts."""
    num_videos, num_texts = len(video.tokens), len(text.tokens)
    rows = torch.arange(num_videos).repeat_interleave(num_texts)  # (V*C,)
    texts = text.select(torch.arange(num_texts).repeat(num_videos))
    probability = model.match(texts, video.select(rows)).softmax(dim=1)[:, MATCH]  # (V*C,)
    return {
        "itm_prob_video_by_text": probability.view(num_videos, num_texts),
        "itc_sim_video_by_text": similarity(
            video.embedding, text.embedding, temperature=model.temp
        ),
    }


def _fill(case: Case, model: nn.Module) -> list[Finding]:
    """Give a model the golden weights, and compare its state dict with the original's."""
    total = fill(model)
    return [
        compare_keys(case.name, model.state_dict(), case.facts["keys"]),
        compare_array(
            case.name, "sum of weights", total, case.facts["weights_sum"], tolerance=SUM_TOLERANCE
        ),
    ]


def _compare(case: Case, name: str, value: Tensor) -> Finding:
    return compare_array(case.name, name, value, case.arrays[name])
