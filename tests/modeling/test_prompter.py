from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import alpro.families.alpro.pretraining_model as module
from alpro.errors import InputError
from alpro.families.alpro.model import TimeSformerEncoder
from alpro.families.alpro.pretraining_model import (
    MAX_PROMPT_TOKENS,
    TEMPLATES,
    Prompter,
    check_prompts,
    ensemble,
    prompts_of,
)
from alpro.modeling.bert import SplitBert
from alpro.modeling.timesformer import TimeSformer
from tests.losses.one_clip import contrastive_loss
from tests.modeling.models import (
    NUM_ENTITIES,
    VOCAB_SIZE,
    random_frames,
    random_text,
    small_bert,
    small_prompter,
    small_timesformer,
)

ENTITIES = ("dog", "cat", "ice cream", "man", "girl")
UNUSED = ("itm_head.", "visual_encoder.model.head.", "text_encoder.cls.")
FUSION = tuple(f"text_encoder.bert.encoder.layer.{layer}." for layer in (2, 3))


def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
    """A made-up id per word, padded to the longest text."""
    words = [[1 + sum(map(ord, word)) % (VOCAB_SIZE - 1) for word in t.split()] for t in texts]
    length = max(map(len, words))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in words])
    return ids, (ids != 0).long()


def test_prompts_of_one_template_stand_together() -> None:
    prompts = prompts_of(("dog", "cat"), "video")
    assert len(prompts) == 12 * 2
    assert prompts[:3] == ["A footage of a dog.", "A footage of a cat.", "A footage of the dog."]
    assert prompts[-1] == "A video footage of one cat."
    pictures = prompts_of(("{dog}",), "image")
    assert pictures[0] == "A photo of a {dog}."
    assert pictures[6:8] == ["A good photo of the {dog}.", "A good photo of a {dog}."]
    assert all(len(set(templates)) == 12 for templates in TEMPLATES.values())


def test_prompts_of_an_entity_are_averaged() -> None:
    prompts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    # Two templates of two entities. The first entity's mean is shorter than 1 and stays so.
    assert ensemble(prompts, num_entities=2).tolist() == [[0.5, 0.5], [0.0, 1.0]]


@pytest.mark.parametrize("at_once", [1000, 7])
def test_building_prompts(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(module, "PROMPTS_AT_ONCE", at_once)
    model = small_prompter()
    model.build_prompts(tokenize, ENTITIES)
    assert model.training
    model.eval()
    for media in TEMPLATES:
        for row, entity in enumerate(ENTITIES):
            texts = [template.format(entity) for template in TEMPLATES[media]]
            with torch.no_grad():
                expected = model.encode_text(*tokenize(texts)).embedding.mean(dim=0)
            torch.testing.assert_close(model.prompt_embeddings(media)[row], expected)
    assert not torch.equal(model.video_prompt_feat, model.image_prompt_feat)


@pytest.mark.parametrize("cut_at", [MAX_PROMPT_TOKENS + 1, 99])
def test_an_entity_of_too_many_tokens_is_named(cut_at: int) -> None:
    video, text = TimeSformerEncoder(small_timesformer()), small_bert(max_position_embeddings=99)
    model = Prompter(video, text, num_entities=2, embed_dim=8)

    def with_marks(texts: list[str]) -> tuple[Tensor, Tensor]:
        """Texts between [CLS] and [SEP], the full stop a token of its own."""
        ids, mask = tokenize([f"[CLS] {text[:-1]} . [SEP]" for text in texts])
        return ids[:, :cut_at], mask[:, :cut_at]

    seven = "a b c d e f g"  # in the longest templates, "A good photo of the ...", 15 tokens
    for use in (model.build_prompts, check_prompts):
        use(with_marks, ("dog", seven))
        with pytest.raises(InputError) as caught:
            use(with_marks, ("dog", f"{seven} h i j"))
        assert str(caught.value) == (
            "entity_file_path: the prompt 'A footage of a a b c d e f g h i j.' has more than 15 "
            "tokens. Shorten that entity, or take it out of the file."
        )


def test_one_entity_list_per_prompter() -> None:
    with pytest.raises(ValueError, match="4 entities for a prompter of 5"):
        small_prompter().build_prompts(tokenize, ENTITIES[:4])
    with pytest.raises(ValueError, match="num_entities 0"):
        small_prompter(num_entities=0)


def test_probabilities_by_hand() -> None:
    model = small_prompter().eval()
    frames = random_frames()
    with torch.no_grad():
        model.temp.fill_(0.5)
        embedding = model.encode_video(frames).embedding  # (2, 8)
    model.video_prompt_feat.zero_()
    model.video_prompt_feat[1] = embedding[0]
    probabilities = model.entity_probabilities(frames, "video")
    assert probabilities.shape == (2, NUM_ENTITIES)
    # Its own embedding has similarity 1 / 0.5, the zeros have none.
    e2 = torch.tensor(2.0).exp()
    torch.testing.assert_close(probabilities[0, 1], e2 / (e2 + NUM_ENTITIES - 1))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
    assert not probabilities.requires_grad


def test_images_are_compared_with_the_prompts_of_images() -> None:
    model = small_prompter().eval()
    picture = random_frames(num_frames=1)
    of_image = model.entity_probabilities(picture, "image")
    model.video_prompt_feat.copy_(model.image_prompt_feat)
    torch.testing.assert_close(model.entity_probabilities(picture, "video"), of_image)
    model.image_prompt_feat.copy_(functional.normalize(torch.randn(NUM_ENTITIES, 8)))
    assert not torch.allclose(model.entity_probabilities(picture, "image"), of_image)


def test_contrast_trains_what_is_used() -> None:
    model = small_prompter()
    video, text = model.encode_video(random_frames()), model.encode_text(*random_text())
    contrastive_loss(
        video.embedding,
        text.embedding,
        all_video=video.embedding,
        all_text=text.embedding,
        temperature=model.temp,
    ).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(UNUSED + FUSION), name
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_published_sizes() -> None:
    """The counts of tensors and parameters that the original's class has."""
    with torch.device("meta"):
        model = Prompter(
            TimeSformerEncoder(TimeSformer(image_size=224, num_frames=4)),
            SplitBert(),
            num_entities=1000,
        )
    assert len(model.state_dict()) == 463
    assert sum(parameter.numel() for parameter in model.parameters()) == 231_472_845
    assert model.state_dict()["image_prompt_feat"].shape == (1000, 256)


def test_pooling_is_that_of_the_base_model() -> None:
    model = Prompter(
        TimeSformerEncoder(small_timesformer()), small_bert(), num_entities=3, pooling="mean"
    )
    assert model.pooling == "mean"
