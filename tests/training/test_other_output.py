"""Output folders whose data has moved, that hold links, or files of somebody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from alpro.errors import InputError
from alpro.user_files import UnreadableFileError
from tests.training.claims import OWN, claim, files_of, make_arguments, make_files


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return make_arguments(tmp_path)


def moving(arguments: dict[str, Any], root: Path, *, text: str) -> dict[str, Any]:
    """The same config with its captions under another folder."""
    path = root / "train.jsonl"
    path.parent.mkdir()
    path.write_text(text)
    sets = [{"name": "a", "txt": str(path), "img": str(root / "videos")}]
    hashes = {"train_datasets.0.txt": text}
    return {**arguments, "train_datasets": sets, "annotations_sha256": hashes}


@pytest.mark.parametrize("restores", [True, False])
def test_a_run_whose_data_has_moved_goes_on_and_keeps_the_new_paths(
    tmp_path: Path,
    arguments: dict[str, Any],
    restores: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = tmp_path / "run"
    claim(root, {**moving(arguments, tmp_path / "a", text="one"), "e2e_weights_path": "gone.pt"})
    if restores:
        (root / "restore.pt").touch()
    now = {**moving(arguments, tmp_path / "b", text="one"), "e2e_weights_path": "new.pt"}
    caplog.set_level("INFO")
    claim(root, {**now, "n_workers": 9})
    stored = json.loads((root / "log/args.json").read_text())
    assert stored["train_datasets"] == now["train_datasets"]
    assert stored["e2e_weights_path"] == ("gone.pt" if restores else "new.pt")
    assert stored["n_workers"] == (1 if restores else 9)
    told = f"train_datasets.0.img: {tmp_path / 'a/videos'} before, {tmp_path / 'b/videos'} now"
    assert (told in caplog.text) == restores


def test_changed_content_is_another_run_with_ways_out(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    root = tmp_path / "run"
    claim(root, moving(arguments, tmp_path / "a", text="one"))
    with pytest.raises(InputError) as caught:
        claim(root, moving(arguments, tmp_path / "b", text="two"))
    message = str(caught.value)
    content = "(train_datasets.0.txt): another content than when the run began\n"
    assert f"\n  {tmp_path / 'b/train.jsonl'} {content}" in message
    assert "Put the former files back to continue it" in message
    weights = root / "ckpt/model_step_last.pt"
    assert f"--e2e_weights_path {weights} and another output_dir" in message
    assert message.count("\n  ") == 1


@pytest.mark.parametrize("linked", ["log", "ckpt", "results_test"])
def test_overwriting_deletes_nothing_through_a_link(
    tmp_path: Path, arguments: dict[str, Any], linked: str
) -> None:
    root, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    make_files(elsewhere, "args.json", "model_step_1.pt", "step_best/scores.json", ".args.json.tmp")
    make_files(root, "restore.pt")
    (root / linked).symlink_to(elsewhere)
    before = files_of(elsewhere)
    with pytest.raises(InputError, match=f"^output_dir: {root / linked} is a link.*Remove the li"):
        claim(root, arguments, overwrite=True)
    assert files_of(elsewhere) - {"run.lock"} == before
    assert (root / "restore.pt").exists()


def test_overwriting_deletes_links_and_not_the_files_they_lead_to(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    make_files(tmp_path, "elsewhere/best.pt", "run/log/args.json")
    (tmp_path / "run/ckpt").mkdir()
    (tmp_path / "run/ckpt/model_step_best.pt").symlink_to(tmp_path / "elsewhere/best.pt")
    claim(tmp_path / "run", arguments, overwrite=True)
    assert (tmp_path / "elsewhere/best.pt").read_text() == "old"
    assert files_of(tmp_path / "run") == OWN


def test_an_output_folder_that_is_a_link_is_that_folder(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    make_files(tmp_path / "disk", "restore.pt")
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    claim(tmp_path / "run", arguments, overwrite=True)
    assert files_of(tmp_path / "disk") == OWN


@pytest.mark.parametrize("overwrite", [True, False])
def test_files_of_others_are_not_replaced(
    tmp_path: Path, arguments: dict[str, Any], overwrite: bool
) -> None:
    """In a folder of data, of code, a home folder: no run has left anything there."""
    names = ("log/metrics.jsonl", "log/log.txt", "results_a/step_1/scores.json", "v.mp4")
    make_files(tmp_path, *names)
    before = files_of(tmp_path)
    with pytest.raises(InputError, match="metrics.jsonl would be replaced, but .* is not the fold"):
        claim(tmp_path, arguments, overwrite=overwrite)
    assert files_of(tmp_path) == before
    (tmp_path / "log/metrics.jsonl").unlink()
    claim(tmp_path, arguments, overwrite=overwrite)
    assert files_of(tmp_path) == (before - {"log/metrics.jsonl"}) | OWN


def test_a_config_that_may_not_be_read_is_no_reason_to_delete_a_run(
    tmp_path: Path, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(tmp_path / "run", arguments)
    path = tmp_path / "run/log/args.json"
    monkeypatch.setattr("os.access", lambda one, _: Path(one) != path)

    def refuse(path: Path) -> NoReturn:
        raise UnreadableFileError(path, "cannot be read: denied")

    monkeypatch.setattr("alpro.user_files.open_file", refuse)
    with pytest.raises(InputError, match=f"^{path}: cannot be read: denied$"):
        claim(tmp_path / "run", arguments)


def test_a_run_that_ended_before_it_wrote_its_config_starts_over(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    make_files(tmp_path / "run", "log/run.lock", "log/model_config.json")
    claim(tmp_path / "run", arguments)
    assert files_of(tmp_path / "run") == OWN
