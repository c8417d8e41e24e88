from __future__ import annotations

import torch

from alpro.families.alpro.checkpoint import adapt_state_dict, describe_adaptation
from alpro.modeling.state_dict_adapter import (
    Mismatch,
    compare,
    resize_pos_embed,
    resize_time_embed,
)
from tests.modeling.models import small_model, small_qa_model

TIME_EMBED = "visual_encoder.model.time_embed"
POS_EMBED = "visual_encoder.model.pos_embed"
POSITION_IDS = "text_encoder.bert.embeddings.position_ids"
DECODER = "text_encoder.cls.predictions.decoder.weight"


def test_own_state_dict_fits() -> None:
    model = small_model()
    state = model.state_dict()
    assert not compare(adapt_state_dict(state, state), model)
    assert describe_adaptation(state, state) == []


def test_time_is_resized_by_nearest_frame() -> None:
    frames = torch.arange(4.0).view(1, 4, 1)
    assert resize_time_embed(frames, 8).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resize_time_embed(frames, 2).flatten().tolist() == [0, 2]
    assert resize_time_embed(frames, 6).flatten().tolist() == [0, 0, 1, 2, 2, 3]


def test_position_grid_keeps_its_directions() -> None:
    rows = torch.arange(4.0).repeat_interleave(4)
    columns = torch.arange(4.0).repeat(4)
    grid = torch.stack([rows, columns], dim=1)[None]  # (1, 16, 2)
    pos_embed = torch.cat([torch.full((1, 1, 2), 9.0), grid], dim=1)
    resized = resize_pos_embed(pos_embed, 1 + 64)
    assert resized[0, 0].tolist() == [9.0, 9.0]
    patches = resized[0, 1:].view(8, 8, 2)
    torch.testing.assert_close(patches[..., 0], patches[..., 1].t())
    assert (patches[2:-1, 0, 0].diff() > 0.3).all()
    torch.testing.assert_close(patches[:, 0, 0], patches[:, 5, 0])


def test_position_grids_are_smoothed_when_they_shrink() -> None:
    # Columns of 1 and -1 in turn; every third one, without smoothing, is as far from 0 as they are.
    stripes = (1 - 2 * (torch.arange(12) % 2)).float().repeat(12)[None, :, None]  # (1, 144, 1)
    pos_embed = torch.cat([torch.zeros(1, 1, 1), stripes], dim=1)
    assert resize_pos_embed(pos_embed, 1 + 16)[0, 1:].abs().max() < 0.2


def test_checkpoint_of_fewer_frames_and_smaller_images_fits() -> None:
    source, target = small_model(), small_model(num_frames=4, image_size=16)
    state = source.state_dict()
    adapted = adapt_state_dict(state, target.state_dict())
    assert not compare(adapted, target)
    target.load_state_dict(adapted)
    kept = target.state_dict()[TIME_EMBED]
    torch.testing.assert_close(kept[0, ::2], state[TIME_EMBED][0])
    assert state[POS_EMBED].shape == (1, 5, 16)
    notes = describe_adaptation(state, target.state_dict())
    assert f"{TIME_EMBED} resized from (1, 2, 16) to (1, 4, 16)" in notes
    assert f"{POS_EMBED} resized from (1, 5, 16) to (1, 17, 16)" in notes


def test_parts_of_other_stages_are_left_out_and_named() -> None:
    model = small_model()
    state = model.state_dict()
    extra = {"prompter.temp": state["temp"], "mpm_head.0.weight": state["temp"]}
    adapted = adapt_state_dict({**state, **extra}, state)
    assert not compare(adapted, model)
    assert describe_adaptation({**state, **extra}, state) == [
        "1 tensors prompter.* not used",
        "1 tensors mpm_head.* not used",
    ]


def test_text_encoder_takes_the_names_of_the_model() -> None:
    pretrained, model = small_model().state_dict(), small_qa_model()
    head = [name for name in model.state_dict() if name.startswith("classifier.")]
    adapted = adapt_state_dict(pretrained, model.state_dict())
    assert compare(adapted, model) == Mismatch(head, [], [])
    query = "encoder.layer.1.attention.self.query.weight"
    assert adapted[f"text_encoder.{query}"] is pretrained[f"text_encoder.bert.{query}"]
    notes = describe_adaptation(pretrained, model.state_dict())
    num_renamed = sum(name.startswith("text_encoder.bert.") for name in pretrained)
    num_dropped = sum(name.startswith("text_encoder.cls.") for name in pretrained)
    assert notes == [
        f"{num_renamed} tensors renamed to the model's names, as {POSITION_IDS} to "
        "text_encoder.embeddings.position_ids",
        f"{num_dropped} tensors text_encoder.cls.* not used",
    ]


def test_text_encoder_gets_its_prefix_back() -> None:
    finetuned, model = small_qa_model().state_dict(), small_model()
    adapted = adapt_state_dict(finetuned, model.state_dict())
    assert not compare(adapted, model, allowed_missing=["text_encoder.cls.*"])
    assert "4 tensors classifier.* not used" in describe_adaptation(finetuned, model.state_dict())
    model.load_state_dict(adapted, strict=False)
    words = finetuned["text_encoder.embeddings.word_embeddings.weight"]
    assert torch.equal(model.state_dict()[DECODER], words)


def test_position_ids_may_be_absent() -> None:
    model = small_model()
    state = model.state_dict()
    without = {key: value for key, value in state.items() if key != POSITION_IDS}
    assert not compare(adapt_state_dict(without, state), model)
    older = {**state, "text_encoder.bert.more.position_ids": torch.arange(3)}
    assert not compare(adapt_state_dict(older, state), model)


def test_a_tied_tensor_may_be_absent() -> None:
    model = small_model()
    state = {key: value for key, value in model.state_dict().items() if key != DECODER}
    assert not compare(state, model)


def test_differences_are_named() -> None:
    model = small_model()
    state = dict(model.state_dict())
    del state["itm_head.weight"]
    state["surprise"] = torch.zeros(1)
    state["vision_proj.weight"] = torch.zeros(8, 12)
    mismatch = compare(adapt_state_dict(state, model.state_dict()), model)
    assert mismatch == Mismatch(
        ["itm_head.weight"], ["surprise"], [("vision_proj.weight", (8, 12), (8, 16))]
    )
    assert mismatch.describe().splitlines() == [
        "the checkpoint lacks: itm_head.weight",
        "the model does not know: surprise",
        "of another shape: vision_proj.weight: (8, 12) there, (8, 16) here",
    ]
    assert not compare({"temp": state["temp"]}, model, allowed_missing=["*"])


def test_long_lists_of_differences_are_cut() -> None:
    lines = Mismatch([f"key{i}" for i in range(5)], [], []).describe(limit=2).splitlines()
    assert lines[-1] == "the checkpoint lacks: 3 more"
