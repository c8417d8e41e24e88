from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpro.errors import InputError
from alpro.training.run_directory import RunDirectory, read_stored, run_directory_of
from alpro.training.writable import check_output_folder
from tests.training.claims import OWN, claim, files_of, make_arguments, make_files


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return make_arguments(tmp_path)


def test_an_output_folder_that_cannot_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below/run"):
        with pytest.raises(InputError, match=rf"^output_dir: .*{name}: .*/file is not a folder"):
            check_output_folder(tmp_path / name)
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "a/run")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match=f"a/run: the folder {tmp_path} cannot be written to"):
        check_output_folder(tmp_path / "a/run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_fresh_folder_gets_the_runs_config(tmp_path: Path, arguments: dict[str, Any]) -> None:
    claim(tmp_path / "a/run", arguments)
    log = tmp_path / "a/run/log"
    assert json.loads((log / "args.json").read_text()) == {**arguments, "betas": [0.9, 0.98]}
    assert json.loads((log / "model_config.json").read_text()) == {"hidden_size": 32}


def test_a_map_of_answers_is_kept(tmp_path: Path, arguments: dict[str, Any]) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text('{"dog": 0}')
    claim(tmp_path / "run", {**arguments, "ans2label_path": str(labels)})
    assert (tmp_path / "run/log/ans2label.json").read_text() == '{"dog": 0}'


def test_a_list_of_entities_is_kept(tmp_path: Path, arguments: dict[str, Any]) -> None:
    entities = tmp_path / "unigrams.txt"
    entities.write_text("dog 12\ncat 3\n")
    claim(tmp_path / "run", {**arguments, "entity_file_path": str(entities)})
    assert (tmp_path / "run/log/entities.txt").read_text() == "dog 12\ncat 3\n"


@pytest.mark.parametrize("path", [None, "gone.txt"])
def test_a_file_that_the_run_does_not_need_may_be_absent(
    tmp_path: Path, arguments: dict[str, Any], path: str | None
) -> None:
    claim(tmp_path / "run", {**arguments, "entity_file_path": path})
    assert [file.name for file in sorted((tmp_path / "run/log").iterdir())] == [
        *("args.json", "model_config.json", "run.lock"),
    ]


def test_a_run_that_has_not_stored_its_script_may_go_on(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    claim(tmp_path / "run", arguments)
    claim(tmp_path / "run", {**arguments, "script": "src/tasks/run_video_qa.py"})


def test_the_run_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run/ckpt").mkdir(parents=True)
    for path in ("run/ckpt/model_step_1.pt", str(tmp_path / "run/ckpt/model_step_1.pt")):
        run = run_directory_of(Path(path))
        assert run is not None
        assert run.root == Path(path).parents[1]
    assert run_directory_of(tmp_path / "run/model_step_1.pt") is None
    monkeypatch.chdir(tmp_path / "run/ckpt")
    run = run_directory_of(Path("model_step_1.pt"))
    assert run is not None
    assert run.root == tmp_path / "run"


def test_checkpoints_are_listed_in_order(tmp_path: Path) -> None:
    output = RunDirectory(tmp_path, rank=0)
    assert output.steps() == []
    for step in ("best", "17", "3", "last", "100"):
        output.checkpoint(step).parent.mkdir(exist_ok=True)
        output.checkpoint(step).touch()
    assert output.steps() == ["3", "17", "100", "best", "last"]


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe", b"[1]"])
def test_stored_files_of_a_run_may_be_damaged(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert read_stored(tmp_path / "a.json") == {}


def test_the_same_run_may_go_on_elsewhere(tmp_path: Path, arguments: dict[str, Any]) -> None:
    claim(tmp_path / "run", arguments)
    (tmp_path / "run/restore.pt").touch()
    before = (tmp_path / "run/log/args.json").read_text()
    claim(tmp_path / "run", {**arguments, "n_workers": 5})
    # The restore file says what is wrong with another number of processes, and with what follows.
    claim(tmp_path / "run", {**arguments, "n_gpu": 2, "num_train_steps": 5, "valid_steps": 2})
    assert (tmp_path / "run/log/args.json").read_text() == before


def test_a_run_without_a_restore_file_starts_over(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    claim(tmp_path / "run", arguments)
    changed = {**arguments, "n_workers": 5, "n_gpu": 2, "num_train_steps": 5}
    claim(tmp_path / "run", changed)
    stored = json.loads((tmp_path / "run/log/args.json").read_text())
    assert {key: stored[key] for key in ("n_workers", "n_gpu", "num_train_steps")} == {
        **{"n_workers": 5, "n_gpu": 2, "num_train_steps": 5}
    }


def test_another_runs_folder_is_refused_with_all_differences(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    claim(tmp_path / "run", arguments)
    del arguments["betas"]
    with pytest.raises(InputError) as caught:
        claim(tmp_path / "run", {**arguments, "learning_rate": 0.2, "seed": 4, "n_workers": 9})
    message = str(caught.value)
    assert f"output_dir: {tmp_path / 'run'} holds the output of another run" in message
    assert "  learning_rate: 0.1 there, 0.2 now\n" in message
    assert "  betas: [0.9, 0.98] there, nothing now\n" in message
    assert "  seed: nothing there, 4 now\n" in message
    assert "n_workers" not in message
    assert "--overwrite 1" in message


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"num_train_steps": 12}, "num_train_steps: 10 there, 12 now"),
        ({"valid_steps": 3}, "valid_steps: 4 there, 3 now"),
        ({"save_steps": 5}, "save_steps: 2 there, 5 now"),
        (
            {"annotations_sha256": {"train.jsonl": "new", "val.jsonl": "two"}},
            "train.jsonl (train.jsonl): another content",
        ),
        (
            {"architecture": {"visual_model_cfg": {"depth": 12, "drop_path_rate": 0.2}}},
            "visual_model_cfg.drop_path_rate: 0.1 there, 0.2 now",
        ),
        (
            {"n_gpu": 2, "annotations_sha256": {}},
            "annotations_sha256.val.jsonl: two there, nothing",
        ),
    ],
)
def test_changed_data_schedule_or_model_is_another_run(
    tmp_path: Path, arguments: dict[str, Any], changes: dict[str, Any], line: str
) -> None:
    claim(tmp_path / "run", arguments)
    with pytest.raises(InputError) as caught:
        claim(tmp_path / "run", {**arguments, **changes})
    assert f"  {line}" in str(caught.value)
    assert "depth" not in str(caught.value)


def test_keys_of_the_schedule_are_left_out_where_others_explain_them(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    claim(tmp_path / "run", arguments)
    with pytest.raises(InputError) as caught:
        claim(tmp_path / "run", {**arguments, "learning_rate": 0.2, "num_train_steps": 12})
    assert "learning_rate: 0.1 there, 0.2 now" in str(caught.value)
    assert "num_train_steps" not in str(caught.value)


def test_a_text_encoder_that_was_edited_is_another_run(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    claim(tmp_path / "run", arguments)
    edited = {**arguments["architecture"], "model_config": {"hidden_size": 64}}
    with pytest.raises(InputError, match=r"\n  model_config\.hidden_size: 32 there, 64 now\n"):
        claim(tmp_path / "run", {**arguments, "architecture": edited})
    assert json.loads((tmp_path / "run/log/model_config.json").read_text()) == {"hidden_size": 32}


@pytest.mark.parametrize("name", ["restore.pt", "restore_backup.pt", "ckpt/model_step_best.pt"])
def test_checkpoints_of_an_unknown_run_are_left_alone(
    tmp_path: Path, arguments: dict[str, Any], name: str
) -> None:
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    file.write_text("weights")
    with pytest.raises(InputError) as caught:
        claim(tmp_path / "run", arguments)
    message = str(caught.value)
    assert str(file) in message
    assert "log/args.json" in message
    assert "another output_dir, or --overwrite 1" in message
    assert file.read_text() == "weights"
    claim(tmp_path / "run", arguments, overwrite=True)
    assert not file.exists()


@pytest.mark.parametrize("content", [b'{"learning_rate": 0.', b"\xff\xfe", b"[1]"])
def test_a_damaged_config_of_the_run_is_an_error(
    tmp_path: Path, arguments: dict[str, Any], content: bytes
) -> None:
    claim(tmp_path / "run", arguments)
    (tmp_path / "run/log/args.json").write_bytes(content)
    with pytest.raises(InputError, match=r"log/args\.json: .*damaged.*--overwrite 1"):
        claim(tmp_path / "run", arguments)


def test_overwriting_deletes_what_the_run_wrote_and_nothing_else(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    root = tmp_path / "run"
    claim(root, arguments)
    logs = ("metrics.jsonl", "log.txt", "unreadable_videos.jsonl", "events.out.tfevents.1.host.2")
    mine = (
        *("log/ans2label.json", "log/entities.txt", *(f"log/{name}" for name in logs)),
        *("ckpt/model_step_1.pt", "ckpt/model_step_best.pt", "entities.html"),
        *("restore.pt", "restore_backup.pt", "restore.damaged", "restore_backup.damaged"),
        *(f"results_test/step_best_1_mean/{name}.json" for name in ("scores", "results")),
        *(f"results_test/step_best_1_mean/{name}_args.json" for name in ("raw", "merged")),
    )
    others = (
        *("notes.txt", "log/notes.txt", "log/events/mine", "ckpt/epoch3.pt", "ckpt/old/mine.pt"),
        *("results_test/plot.png", "results_test/step_best_1_mean/scores.csv"),
    )
    make_files(root, *mine, *others)
    claim(root, {**arguments, "learning_rate": 0.2}, overwrite=True)
    assert files_of(root) == {*OWN, *others}
    assert json.loads((root / "log/args.json").read_text())["learning_rate"] == 0.2


def test_a_file_that_cannot_be_deleted_is_an_error(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    (tmp_path / "run/restore.pt").mkdir(parents=True)  # cannot be unlinked
    with pytest.raises(OSError, match="restore.pt"):
        claim(tmp_path / "run", arguments, overwrite=True)


def test_only_rank_0_writes(tmp_path: Path, arguments: dict[str, Any]) -> None:
    output = RunDirectory(tmp_path / "run", rank=1)
    output.claim(arguments, may_differ=(), overwrite=True)
    assert not (tmp_path / "run").exists()


CUT_SHORT = ("log/.args.json.tmp", "ckpt/.model_step_3.pt.tmp", ".restore.pt.tmp")
UNFINISHED = (*CUT_SHORT, ".restore_backup.pt.tmp", "results_val/step_3/.scores.json.tmp")
LIST = "log/unreadable_videos.jsonl"


@pytest.mark.parametrize("overwrite", [False, True])
def test_incomplete_files_of_a_killed_run_are_removed(
    tmp_path: Path, arguments: dict[str, Any], overwrite: bool
) -> None:
    claim(tmp_path / "run", arguments)
    make_files(tmp_path / "run", *UNFINISHED, ".notes.txt.tmp", "ckpt/.mine.pt.tmp")
    claim(tmp_path / "run", arguments, overwrite=overwrite)
    assert files_of(tmp_path / "run") == {*OWN, ".notes.txt.tmp", "ckpt/.mine.pt.tmp"}


def test_temporary_files_of_another_run_stay(tmp_path: Path, arguments: dict[str, Any]) -> None:
    claim(tmp_path / "run", arguments)
    make_files(tmp_path / "run", *UNFINISHED, LIST)
    before = files_of(tmp_path / "run")
    with pytest.raises(InputError, match="another run"):
        claim(tmp_path / "run", {**arguments, "learning_rate": 0.2})
    RunDirectory(tmp_path / "run", rank=1).claim(arguments, may_differ=(), overwrite=False)
    assert files_of(tmp_path / "run") == before


@pytest.mark.parametrize("name", ["restore.pt", "restore_backup.pt", None])
def test_the_list_of_unreadable_videos_stays_where_a_run_goes_on(
    tmp_path: Path, arguments: dict[str, Any], name: str | None
) -> None:
    claim(tmp_path / "run", arguments)
    make_files(tmp_path / "run", LIST, *([name] if name else []))
    claim(tmp_path / "run", arguments)
    assert (LIST in files_of(tmp_path / "run")) == (name is not None)


def test_a_changed_set_is_described_by_its_different_parts(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    sets = [{"name": "a", "img": "videos"}, {"name": "b", "img": None}]
    claim(tmp_path / "run", {**arguments, "train_datasets": sets})
    now = [sets[0], {"name": "b", "img": "data/my_data/images"}]
    with pytest.raises(InputError) as caught:
        claim(tmp_path / "run", {**arguments, "train_datasets": now})
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert lines == ["  train_datasets.1.img: null there, data/my_data/images now"]
