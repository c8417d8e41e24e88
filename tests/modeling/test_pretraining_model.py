from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alpro.families.alpro.model import TimeSformerEncoder
from alpro.families.alpro.pretraining_model import AlproForPretraining, Prompter
from alpro.losses import masked_language_loss, matching_loss, prompted_entity_loss
from alpro.modeling.bert import SplitBert
from alpro.modeling.timesformer import TimeSformer
from tests.losses.one_clip import contrastive_loss
from tests.modeling.models import (
    NUM_ENTITIES,
    VOCAB_SIZE,
    WIDTH,
    random_frames,
    random_text,
    small_model,
    small_pretraining_model,
    small_prompter,
)

LENGTH = 5
REGION = torch.tensor([[[True, False], [True, False]], [[False, False], [False, True]]])
POSITIONS = torch.tensor([[False, True, False, True, False], [False] * LENGTH])


def fused_tokens(model: AlproForPretraining) -> Tensor:
    """(2, L + 1 + N, D)."""
    text = model.encode_text(*random_text(length=LENGTH))
    return model.fuse(text, model.encode_video(random_frames()))


@torch.no_grad()
def test_words_are_predicted_where_they_are_asked_for() -> None:
    model = small_pretraining_model().eval()
    fused = fused_tokens(model)
    words = model.predict_words(fused, POSITIONS)
    assert words.shape == (2, VOCAB_SIZE)
    torch.testing.assert_close(words, model.text_encoder.cls(fused)[0, [1, 3]])
    assert model.predict_words(fused, torch.zeros_like(POSITIONS)).shape == (0, VOCAB_SIZE)


@torch.no_grad()
def test_entities_are_read_from_the_patches_of_the_region() -> None:
    model = small_pretraining_model().eval()
    fused = fused_tokens(model)
    logits = model.predict_entities(fused, num_text_tokens=LENGTH, region=REGION)
    assert logits.shape == (2, NUM_ENTITIES)
    patches = fused[:, LENGTH + 1 :]
    mean = torch.stack([(patches[0, 0] + patches[0, 2]) / 2, patches[1, 3]])
    state = model.state_dict()
    weights = [state[f"mpm_head.{layer}.weight"] for layer in (0, 2)]
    biases = [state[f"mpm_head.{layer}.bias"] for layer in (0, 2)]
    hidden = (mean @ weights[0].t() + biases[0]).clamp(min=0)
    assert hidden.shape == (2, 2 * WIDTH)
    torch.testing.assert_close(logits, hidden @ weights[1].t() + biases[1])


def test_the_prompter_is_never_trained() -> None:
    model = small_pretraining_model()
    prompter = model.prompter
    assert prompter is not None
    assert model.train() is model
    assert model.training
    assert model.text_encoder.training
    assert not any(module.training for module in prompter.modules())
    assert not any(parameter.requires_grad for parameter in prompter.parameters())
    assert not model.eval().training
    prompter.train()  # as by someone who walks over the modules
    model.train()
    assert not any(module.training for module in prompter.modules())
    frames = random_frames()
    first, second = (prompter.entity_probabilities(frames, "video") for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_every_trainable_parameter_receives_a_gradient(gradient_checkpointing: bool) -> None:
    model = small_pretraining_model(gradient_checkpointing=gradient_checkpointing)
    assert model.prompter is not None
    ids, mask = random_text(length=LENGTH)
    video, text = model.encode_video(random_frames()), model.encode_text(ids, mask)
    fused = model.fuse(text, video)
    targets = model.prompter.entity_probabilities(random_frames(), "video")
    losses = [
        contrastive_loss(
            video.embedding,
            text.embedding,
            all_video=video.embedding,
            all_text=text.embedding,
            temperature=model.temp,
        ),
        matching_loss(model.itm_head(fused[:, 0]), 1),
        masked_language_loss(model.predict_words(fused, POSITIONS), ids[POSITIONS]),
        prompted_entity_loss(
            model.predict_entities(fused, num_text_tokens=LENGTH, region=REGION),
            targets,
            threshold=0.0,
        ),
    ]
    torch.stack(losses).sum().backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("prompter.", "visual_encoder.model.head."))
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_names_are_those_of_released_checkpoints() -> None:
    model = small_pretraining_model()
    heads = {f"mpm_head.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    nested = {f"prompter.{name}" for name in small_prompter().state_dict()}
    assert set(model.state_dict()) == set(small_model().state_dict()) | heads | nested


def test_without_entities_it_is_the_retrieval_model() -> None:
    model = small_pretraining_model(num_entities=None)
    assert model.prompter is None
    assert set(model.train().state_dict()) == set(small_model().state_dict())
    with pytest.raises(AssertionError, match="no entity head"):
        model.predict_entities(fused_tokens(model), num_text_tokens=LENGTH, region=REGION)


def test_published_sizes() -> None:
    """The counts of tensors and parameters that the original's class has."""
    with torch.device("meta"):
        video = [TimeSformerEncoder(TimeSformer(num_frames=4)) for _ in range(2)]
        prompter = Prompter(video[0], SplitBert(), num_entities=1000)
        model = AlproForPretraining(video[1], SplitBert(), prompter=prompter)
    assert len(model.state_dict()) == 928
    assert sum(parameter.numel() for parameter in model.parameters()) == 465_663_874
