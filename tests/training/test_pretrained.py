"""Starting weights: image transformer and BERT from local files, whole checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from alpro.errors import InputError
from alpro.families.alpro.family import load_bert, load_vit, resolve_vit
from alpro.training.weight_files import find_weights
from tests.factories import make_model
from tests.modeling.models import NUM_LABELS, small_bert, small_model, small_qa_model
from tests.training.toys import assert_same, make_plan, train
from tests.weights import load_checkpoint, load_starting_weights

VIDEO, TEXT = "visual_encoder.model.", "text_encoder."
OVER_TIME = ("temporal", "time_embed")
HEAD = ("classifier.*",)


def image_transformer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What timm would save of an image transformer with the weights of a model's blocks."""
    kept = {
        name.removeprefix(VIDEO): value
        for name, value in state.items()
        if name.startswith(VIDEO) and not any(part in name for part in OVER_TIME)
    }
    return {**kept, "head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)}


def bert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What Google's BERT looks like: TensorFlow's names of norms, heads of pretraining."""
    kept = {}
    for name, value in state.items():
        if name.startswith(TEXT):
            name = name.removeprefix(TEXT)
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            kept[name.replace("LayerNorm.bias", "LayerNorm.beta")] = value
    pooler = {"bert.pooler.dense.weight": torch.zeros(32, 32)}
    return {**kept, **pooler, "cls.seq_relationship.bias": torch.zeros(2)}


@pytest.fixture
def source() -> dict[str, Tensor]:
    """Weights that no fresh model has."""
    model = make_model(seed=5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return dict(model.state_dict())


@pytest.mark.parametrize("in_folder", [True, False])
def test_image_transformer_and_bert(
    tmp_path: Path, source: dict[str, Tensor], in_folder: bool
) -> None:
    vit_file, bert_file = tmp_path / "vit/model.safetensors", tmp_path / "bert/pytorch_model.bin"
    for file in (vit_file, bert_file):
        file.parent.mkdir()
    contiguous = {name: value.contiguous() for name, value in image_transformer(source).items()}
    save_file(contiguous, vit_file)
    torch.save(bert(source), bert_file)
    model = make_model(seed=1)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    load_starting_weights(
        model,
        checkpoint=None,
        vit=vit_file.parent if in_folder else vit_file,
        bert=bert_file.parent if in_folder else bert_file,
        random_init=False,
    )
    copied = 0
    for name, value in model.state_dict().items():
        over_space = name.replace("temporal_attn", "attn").replace("temporal_norm1", "norm1")
        own = name.startswith((VIDEO, TEXT)) and not name.startswith(f"{VIDEO}head")
        if own and not any(part in over_space for part in OVER_TIME):
            assert torch.equal(value, source[over_space]), name
            copied += over_space != name
        else:
            assert torch.equal(value, fresh[name]), name
    assert copied == 6  # weight and bias of norm, of queries, keys and values, and of the output


def test_a_whole_checkpoint_asks_for_nothing_else(
    tmp_path: Path, source: dict[str, Tensor]
) -> None:
    torch.save(source, tmp_path / "alpro.pt")
    model = make_model()
    gone = tmp_path / "gone"
    load_starting_weights(
        model, checkpoint=tmp_path / "alpro.pt", vit=gone, bert=gone, random_init=False
    )
    assert_same(dict(model.state_dict()), source)


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_a_wrapped_checkpoint_is_unwrapped(
    tmp_path: Path, source: dict[str, Tensor], wrapper: str
) -> None:
    state = {f"module.{name}": value for name, value in source.items()}
    torch.save({wrapper: state, "epoch": 3}, tmp_path / "alpro.pt")
    model = make_model()
    load_checkpoint(model, tmp_path / "alpro.pt")
    assert_same(dict(model.state_dict()), source)


def test_a_restore_file_is_no_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, plan=make_plan())
    with pytest.raises(InputError) as caught:
        load_checkpoint(make_model(), tmp_path / "restore.pt")
    message = str(caught.value)
    assert f"{tmp_path / 'restore.pt'}: this is a restore file" in message
    assert str(tmp_path / "ckpt/model_step_best.pt") in message


def test_a_checkpoint_of_another_number_of_frames_is_resized(
    tmp_path: Path, source: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({**source, "mpm_head.0.bias": torch.zeros(3)}, tmp_path / "alpro.pt")
    model = make_model(num_frames=4)
    with caplog.at_level(logging.INFO):
        load_starting_weights(
            model, checkpoint=tmp_path / "alpro.pt", vit=None, bert=tmp_path, random_init=False
        )
    name = f"{VIDEO}time_embed"
    assert torch.equal(model.state_dict()[name], source[name][:, [0, 0, 1, 1]])
    assert f"{name} resized from (1, 2, 32) to (1, 4, 32)" in caplog.text
    assert "1 tensors mpm_head.* not used" in caplog.text


def saved(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Write a model's checkpoint; returns its tensors."""
    torch.save(model.state_dict(), path)
    return dict(model.state_dict())


def test_a_pretrained_checkpoint_starts_question_answering(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text encoder has the prefix ``bert.``, and it has no classifier."""
    path = tmp_path / "alpro.pt"
    pretrained = saved(path, small_model())
    other_tasks = {"prompter.temp": torch.zeros(()), "mpm_head.0.bias": torch.zeros(3)}
    torch.save({**pretrained, **other_tasks}, path)
    model = small_qa_model(num_frames=4)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        load_starting_weights(
            model, checkpoint=path, vit=None, bert=tmp_path, random_init=False, allowed_missing=HEAD
        )
    for name, value in model.state_dict().items():
        if name.startswith("classifier."):
            assert torch.equal(value, fresh[name]), name
        elif not name.endswith("time_embed"):
            assert torch.equal(value, pretrained[name.replace(TEXT, f"{TEXT}bert.")]), name
    lines = [record.getMessage() for record in caplog.records]
    assert f"{path}: 4 tensors classifier.* missing, left as initialised" in lines
    counts = f"{len(fresh) - 4} of the {len(fresh)}"
    assert lines[-1] == f"{path}: {counts} tensors of the model loaded"
    assert any("tensors renamed to the model's names" in line for line in lines)


def test_optional_tensors_are_loaded_if_present(tmp_path: Path) -> None:
    state = saved(tmp_path / "best.pt", small_qa_model())
    for patterns in ((), HEAD):
        model = small_qa_model()
        load_checkpoint(model, tmp_path / "best.pt", allowed_missing=patterns)
        assert_same(dict(model.state_dict()), state)


def test_a_prepared_checkpoint_is_loaded(tmp_path: Path) -> None:
    """As where a classifier is given up, whether the new one is of its size or of another."""
    state = saved(tmp_path / "best.pt", small_qa_model())

    def without_classifier(found: dict[str, Tensor]) -> dict[str, Tensor]:
        assert_same(found, state)
        return {name: w for name, w in found.items() if not name.startswith("classifier.")}

    for num_labels in (NUM_LABELS, NUM_LABELS + 1):
        model = small_qa_model(num_labels=num_labels)
        fresh = {name: value.clone() for name, value in model.state_dict().items()}
        load_checkpoint(
            model, tmp_path / "best.pt", allowed_missing=HEAD, prepare=without_classifier
        )
        for name, value in model.state_dict().items():
            expected = fresh if name.startswith("classifier.") else state
            assert torch.equal(value, expected[name]), name


def test_a_tied_tensor_of_a_missing_head_is_not_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The language head's decoder is the word embedding, which question answering has."""
    saved(tmp_path / "best.pt", small_qa_model())
    model = small_model()
    names = {name for name in model.state_dict() if name.startswith(f"{TEXT}cls.")}
    assert f"{TEXT}cls.predictions.decoder.weight" in names
    with caplog.at_level(logging.INFO):
        load_checkpoint(model, tmp_path / "best.pt", allowed_missing=(f"{TEXT}cls.*",))
    assert f"{len(names) - 1} tensors {TEXT}cls.* missing, left as initialised" in caplog.text


def test_half_a_head_is_not_completed_at_random(tmp_path: Path) -> None:
    state = dict(small_qa_model().state_dict())
    del state["classifier.2.bias"]
    torch.save(state, tmp_path / "best.pt")
    with pytest.raises(InputError, match=r"the checkpoint lacks: classifier\.2\.bias"):
        load_checkpoint(small_qa_model(), tmp_path / "best.pt", allowed_missing=HEAD)


def test_bert_starts_the_headless_text_encoder(tmp_path: Path) -> None:
    donor = small_bert()
    torch.save(bert({TEXT + k: v for k, v in donor.state_dict().items()}), tmp_path / "bert.bin")
    model = small_qa_model()
    load_bert(model, tmp_path)
    for name, value in model.text_encoder.state_dict().items():
        assert torch.equal(value, donor.state_dict()[f"bert.{name}"]), name


def test_random_weights_must_be_meant(tmp_path: Path) -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="nothing to start from"):
        load_starting_weights(model, checkpoint=None, vit=None, bert=tmp_path, random_init=False)
    load_starting_weights(model, checkpoint=None, vit=None, bert=tmp_path, random_init=True)
    assert_same(dict(model.state_dict()), before)


def test_an_image_transformer_of_another_width(tmp_path: Path, source: dict[str, Tensor]) -> None:
    state = {**image_transformer(source), "norm.weight": torch.zeros(64)}
    torch.save(state, tmp_path / "vit.pth")
    with pytest.raises(InputError, match=r"norm\.weight: \(64,\) there, \(32,\) here"):
        load_vit(make_model(), tmp_path / "vit.pth")


def test_the_known_name_means_its_folder() -> None:
    assert resolve_vit("vit_base_patch16_224") == Path("ext/vit_base_patch16_224")
    assert resolve_vit("/data/vit.pth") == Path("/data/vit.pth")
    assert resolve_vit(None) is None


def test_the_preferred_file_of_a_folder(tmp_path: Path) -> None:
    for name in ("zoo.pth", "pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).touch()
    assert find_weights(tmp_path, key="k", source="s").name == "model.safetensors"
    (tmp_path / "model.safetensors").unlink()
    assert find_weights(tmp_path, key="k", source="s").name == "pytorch_model.bin"
    with pytest.raises(InputError, match=r"^k: no weights at .*gone\. Put the source there"):
        find_weights(tmp_path / "gone", key="k", source="the source")
