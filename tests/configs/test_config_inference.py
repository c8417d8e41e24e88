"""What an inference run takes from the trained run in its output folder."""

from pathlib import Path
from typing import Any

import pytest

from alpro.errors import InputError

INFERENCE = (
    *("--do_inference", "1", "--inference_split", "test", "--inference_model_step", "best"),
    *("--inference_txt_db", "test.jsonl", "--inference_img_db", "videos"),
)


@pytest.fixture
def trained(tmp_path: Path, write: Any, experiment: dict[str, Any]) -> Path:
    """The folder of a run as the original leaves it: derived keys, ints for truth values."""
    stored = {
        **experiment,
        **{"num_frm": 8, "n_workers": 9, "data_ratio": 0.5, "fp16": False, "debug": 0},
        **{"output_dir": "/cluster/out", "inference_img_db": "/cluster/videos"},
        **{"n_gpu": 8, "num_train_steps": 1000, "valid_steps": 100, "num_workers": 4},
        **{"img_input_format": "RGB", "model_type": "pretrain", "dropout": 0.1},
    }
    write("run/log/args.json", stored)
    write("run/log/model_config.json", {"num_hidden_layers": 8, "fusion_layer": 4})
    return tmp_path / "run"


def test_the_stored_config_beats_the_file_but_not_flags(load: Any, trained: Path) -> None:
    changes = {"num_frm": 4, "max_txt_len": 30, "output_dir": str(trained)}
    resolved = load(changes, *INFERENCE)
    assert resolved.config.num_frm == 8
    assert resolved.sources["num_frm"] == "stored args.json"
    assert resolved.config.max_txt_len == 30, "a key the stored config lacks comes from the file"
    assert load(changes, *INFERENCE, "--num_frm", "16").config.num_frm == 16


def test_where_and_what_is_never_taken_from_the_stored_config(load: Any, trained: Path) -> None:
    resolved = load({"output_dir": str(trained), "n_workers": 1}, *INFERENCE)
    assert resolved.config.output_dir == str(trained)
    assert resolved.config.inference_img_db == "videos"
    assert resolved.config.do_inference is True
    assert resolved.config.n_workers == 1
    assert resolved.warnings == []


def test_checkpoint_and_text_encoder_are_the_runs_own(load: Any, trained: Path) -> None:
    changes = {"output_dir": str(trained), "e2e_weights_path": "pretrained.pt", "data_ratio": 0.1}
    resolved = load(changes, *INFERENCE)
    assert resolved.config.e2e_weights_path == str(trained / "ckpt" / "model_step_best.pt")
    assert resolved.config.model_config == str(trained / "log" / "model_config.json")
    assert resolved.architecture["model_config"].num_hidden_layers == 8
    assert resolved.config.data_ratio == 1.0
    other = load(changes, *INFERENCE, "--inference_model_step", "300")
    assert other.config.e2e_weights_path == str(trained / "ckpt" / "model_step_300.pt")


def test_a_step_may_be_a_number_of_the_file(load: Any, trained: Path) -> None:
    changes = {"output_dir": str(trained), "inference_model_step": 100}
    config = load(changes, *INFERENCE[:4], *INFERENCE[6:]).config
    assert config.inference_model_step == "100"
    assert config.e2e_weights_path == str(trained / "ckpt" / "model_step_100.pt")
    for wrong in (True, 1.5, [100]):
        (error,) = load.errors({"inference_model_step": wrong})
        assert "inference_model_step is" in error


def test_flags_may_name_other_weights_and_another_folder(load: Any, tmp_path: Path) -> None:
    flags = ("--output_dir", str(tmp_path / "new"), "--e2e_weights_path", "other.pt")
    resolved = load({}, *INFERENCE, *flags)
    assert resolved.config.e2e_weights_path == "other.pt"
    assert resolved.architecture["model_config"].num_hidden_layers == 12


def test_training_keys_are_not_needed(load: Any, trained: Path) -> None:
    changes = {"output_dir": str(trained), "train_datasets": "drop", "val_datasets": "drop"}
    assert load(changes, *INFERENCE).config.do_inference


def test_sets_that_inference_does_not_read_are_not_checked(load: Any, trained: Path) -> None:
    named = {"name": "pets", "txt": {"pets_qa": "a.jsonl"}, "img": "v"}
    changes = {
        "output_dir": str(trained),
        "test_datasets": [named, {**named, "txt": "a/t.csv"}, {**named, "txt": "b/t.csv"}],
    }
    assert load(changes, *INFERENCE).config.do_inference
    assert len(load.errors(changes)) == 2


def test_a_folder_without_a_run_is_an_error(load: Any, tmp_path: Path) -> None:
    (error,) = load.errors({"output_dir": str(tmp_path / "empty")}, *INFERENCE)
    assert "args.json: there is no such file, so output_dir is not the folder of a trained" in error
    assert "--e2e_weights_path" in error


def test_the_run_of_another_task_is_one_plain_error(
    load: Any, load_qa: Any, trained: Path, write: Any, experiment: dict[str, Any]
) -> None:
    stored = {**experiment, "script": "src/tasks/run_video_qa.py", "best_metric": "overall_acc"}
    write("run/log/args.json", {**stored, "ans2label_path": "a.json"})
    changes = {"output_dir": str(trained)}
    with pytest.raises(InputError) as caught:
        load(changes, *INFERENCE)
    assert str(caught.value) == (
        f"{trained} is a run of src/tasks/run_video_qa.py; use that script, or name another folder"
    )
    assert load_qa(changes, *INFERENCE).config.best_metric == "overall_acc"


def test_annotations_and_videos_must_be_named(load: Any, trained: Path) -> None:
    errors = load.errors({"output_dir": str(trained)}, "--do_inference", "1")
    assert len(errors) == 2
    assert "inference_txt_db is missing" in errors[0]
    assert "inference_img_db is missing" in errors[1]
    assert errors[0].endswith("Add --inference_txt_db FILE.")


@pytest.mark.parametrize("name", ["load", "load_qa"])
def test_inference_without_a_checkpoint_is_refused(
    request: pytest.FixtureRequest, name: str, trained: Path
) -> None:
    load = request.getfixturevalue(name)
    for output_dir in (trained, trained.parent / "new"):
        flags = ("--e2e_weights_path", "null", "--random_init", "1")
        (error,) = load.errors({"output_dir": str(output_dir)}, *INFERENCE, *flags)
        assert "inference needs a checkpoint. Give --e2e_weights_path FILE, or leave" in error


def test_an_invalid_stored_value_names_the_stored_file(
    load: Any, trained: Path, write: Any, experiment: dict[str, Any]
) -> None:
    write("run/log/args.json", {**experiment, "num_frm": "many"})
    (error,) = load.errors({"output_dir": str(trained)}, *INFERENCE)
    assert f"{trained}/log/args.json: num_frm is" in error


@pytest.mark.parametrize("flag", ["1", "TRUE"])
def test_the_family_is_the_trained_runs_own(
    load: Any, trained: Path, write: Any, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    write("run/log/args.json", {"family": "other"})
    monkeypatch.setenv("HOME", str(trained.parent))
    (error,) = load.errors({}, "--output_dir", "~/run", "--do_inference", flag)
    assert 'family is "other", which does not exist.' in error
