from __future__ import annotations

import pytest
import torch

from alpro.datasets.tokenization import Tokenizer
from alpro.datasets.transforms.normalize import Normalize
from tests.factories import MEAN, STD
from tests.losses.one_clip import contrastive_loss
from tests.pretraining_factories import make_pairs, make_prompter, make_prompter_task


@pytest.mark.parametrize("num_frames", [1, 2])
def test_the_loss_is_the_contrastive_loss(tokenizer: Tokenizer, num_frames: int) -> None:
    model = make_prompter()
    batch = make_pairs(
        tokenizer, ["v0", "v1", "v2"], mlm_probability=None, with_regions=False,
        num_frames=num_frames,
    )  # fmt: skip
    values = make_prompter_task(model)(batch)
    assert set(values) == {"loss", "itc_loss", "i2t_acc", "t2i_acc"}
    with torch.no_grad():
        video = model.encode_video(Normalize(MEAN, STD)(batch.frames[:, 0])).embedding
        text = model.encode_text(batch.text_ids, batch.text_mask).embedding
        expected = contrastive_loss(
            video, text, all_video=video, all_text=text, temperature=model.temp
        )
    assert values["loss"].item() == values["itc_loss"].item() == expected.item()


def test_parameters_that_the_teacher_uses_are_trained(tokenizer: Tokenizer) -> None:
    model = make_prompter()
    make_prompter_task(model)(make_pairs(tokenizer, ["v0", "v1", "v2"]))["loss"].backward()
    without = {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    }
    assert without == set()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {"itm_head.weight", "text_encoder.cls.predictions.bias"} <= frozen


def test_captions_of_the_same_video_can_be_kept_from_being_negatives(tokenizer: Tokenizer) -> None:
    model, batch = make_prompter(), make_pairs(tokenizer, ["v0", "v0"])
    plain, masked = (
        make_prompter_task(model, mask_same_video=mask)(batch) for mask in (False, True)
    )
    assert plain["loss"].item() > 1e-2
    assert masked["loss"].item() == pytest.approx(0.0, abs=1e-6)


def test_the_temperature_is_clamped_to_its_bounds(tokenizer: Tokenizer) -> None:
    model = make_prompter()
    torch.nn.init.constant_(model.temp, 7.0)
    make_prompter_task(model)(make_pairs(tokenizer, ["v0", "v1"]))
    assert model.temp.item() == pytest.approx(0.5)
