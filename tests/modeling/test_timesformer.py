from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from alpro.modeling.timesformer import Attention, Block, TimeSformer
from tests.modeling.models import NUM_PATCHES, WIDTH, random_frames, small_timesformer


def reference_forward(model: TimeSformer, frames: Tensor) -> Tensor:
    """The forward pass as the paper tells it, one sequence at a time. Returns (B, 1+N, D)."""
    outputs = []
    for video in frames:  # (T, 3, S, S)
        x = model.patch_embed.proj(video).flatten(2).transpose(1, 2)  # (T, N, D)
        x = x + model.pos_embed[:, 1:] + model.time_embed.transpose(0, 1)
        cls = (model.cls_token + model.pos_embed[:, :1])[0]  # (1, D)
        for block in model.blocks:
            assert isinstance(block, Block)
            over_time = [
                mha(block.temporal_attn, block.temporal_norm1(x[:, n])) for n in range(x.size(1))
            ]
            x = x + block.temporal_fc(torch.stack(over_time, dim=1))
            over_space = torch.stack(
                [mha(block.attn, block.norm1(torch.cat([cls, frame]))) for frame in x]
            )  # (T, 1+N, D)
            cls = cls + over_space[:, :1].mean(0)
            x = x + over_space[:, 1:]
            cls = cls + block.mlp(block.norm2(cls))
            x = x + block.mlp(block.norm2(x))
        outputs.append(torch.cat([model.norm(cls), model.norm(x).mean(0)]))
    return torch.stack(outputs)


def mha(attention: Attention, x: Tensor) -> Tensor:
    """Self-attention over (L, D) by PyTorch's own module."""
    oracle = nn.MultiheadAttention(x.size(1), attention.num_heads, batch_first=True)
    oracle.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight,
            "in_proj_bias": attention.qkv.bias,
            "out_proj.weight": attention.proj.weight,
            "out_proj.bias": attention.proj.bias,
        }
    )
    with torch.no_grad():
        return oracle(x[None], x[None], x[None])[0][0]


def spread_weights(model: nn.Module) -> None:
    """Weights large enough that every part matters to the output."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)


@torch.no_grad()
def test_equals_a_straightforward_implementation() -> None:
    model = small_timesformer().eval()
    spread_weights(model)
    frames = random_frames()
    tokens = model(frames)
    assert tokens.shape == (2, 1 + NUM_PATCHES, WIDTH)
    torch.testing.assert_close(tokens, reference_forward(model, frames), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_without_temporal_weights_a_still_clip_is_its_frame() -> None:
    clip = small_timesformer(num_frames=3, temporal_init="zero", time_embed_std=0.0).eval()
    image = small_timesformer(num_frames=1, temporal_init="zero", time_embed_std=0.0).eval()
    image.load_state_dict({**clip.state_dict(), "time_embed": image.time_embed})
    frame = random_frames(num_frames=1)
    torch.testing.assert_close(clip(frame.expand(-1, 3, -1, -1, -1)), image(frame))


@torch.no_grad()
def test_order_of_frames_matters() -> None:
    model = small_timesformer().eval()
    spread_weights(model)
    frames = random_frames()
    assert (model(frames) - model(frames.flip(1))).abs().max() > 1e-3


def gradients(model: TimeSformer, frames: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)  # of stochastic depth
    model(frames).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
def test_every_trainable_parameter_gets_the_same_gradient_with_checkpointing(
    drop_path_rate: float,
) -> None:
    plain = small_timesformer(drop_path_rate=drop_path_rate)
    spread_weights(plain)
    saving = small_timesformer(drop_path_rate=drop_path_rate, gradient_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    frames = random_frames(4)
    expected, ours = gradients(plain, frames), gradients(saving, frames)
    trainable = {name for name, p in plain.named_parameters() if p.requires_grad}
    assert set(expected) == set(ours) == trainable
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(ours[name], gradient, msg=name)


def test_stochastic_depth_drops_each_branch_by_its_own_unit() -> None:
    block = small_timesformer(drop_path_rate=0.5).blocks[1].train()
    assert isinstance(block, Block)
    assert block.drop_path_rate == 0.5
    nn.init.ones_(block.temporal_fc.bias)
    patches = torch.randn(8, NUM_PATCHES, 2, WIDTH)
    residual = block._temporal(patches)
    dropped = (residual == 1.0).flatten(2).all(dim=2)  # (B, N): the bias alone is left
    assert 0 < dropped.sum() < dropped.numel()
    keep = block._keep(patches, (1000,))
    assert keep is not None
    assert set(keep.tolist()) == {0.0, 2.0}
    assert keep.mean().item() == pytest.approx(1.0, abs=0.15)


@torch.no_grad()
def test_evaluation_drops_nothing() -> None:
    model = small_timesformer(drop_path_rate=0.5, drop_rate=0.5, attn_drop_rate=0.5).eval()
    frames = random_frames()
    assert torch.equal(model(frames), model(frames))


@torch.no_grad()
def test_fewer_frames_take_the_nearest_time_embeddings() -> None:
    long = small_timesformer(num_frames=4).eval()
    for num_frames, nearest in ((1, [0]), (2, [0, 2]), (3, [0, 1, 2])):
        short = small_timesformer(num_frames=num_frames).eval()
        state = long.state_dict()
        short.load_state_dict({**state, "time_embed": state["time_embed"][:, nearest]})
        frames = random_frames(num_frames=num_frames)
        torch.testing.assert_close(long(frames), short(frames))


def test_time_embeddings_learn_from_fewer_frames() -> None:
    model = small_timesformer(num_frames=4)
    model(random_frames(num_frames=2)).square().sum().backward()
    assert model.time_embed.grad is not None
    assert model.time_embed.grad.any(dim=2).tolist() == [[True, False, True, False]]


def test_initial_values() -> None:
    model = small_timesformer(embed_dim=64, time_embed_std=0.0, temporal_init="zero")
    assert not model.time_embed.any()
    for block in model.blocks:
        assert isinstance(block, Block)
        assert not block.temporal_fc.weight.any()
        assert not block.temporal_fc.bias.any()
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert small_timesformer(time_embed_std=0.5).time_embed.std() > 0.1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 3, 8, 8), r"\(2, 3, 8, 8\), or fewer frames, but was given \(3, 3, 8, 8\)"),
        ((1, 2, 3, 16, 16), r"but was given \(2, 3, 16, 16\)"),
        ((1, 0, 3, 8, 8), r"but was given \(0, 3, 8, 8\)"),
    ],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_timesformer()(torch.zeros(shape))


def test_patches_must_tile_the_image() -> None:
    with pytest.raises(ValueError, match="image_size 9 is no multiple of patch_size 4"):
        small_timesformer(image_size=9)
