"""The command as a whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alpro.commands.check_data.command import main
from alpro.commands.check_data.probe import Item
from alpro.commands.parallel import Failure
from alpro.commands.video_writers import open_writer
from alpro.isolation.process import IsolatedProcess
from tests.commands.check_data.clips import replace_videos, write_noisy_clip
from tests.commands.check_data.misbehaving import hang_or_crash
from tests.datasets.clips import write_image
from tests.factories import TinyExperiment
from tests.pretraining_factories import PretrainExperiment
from tests.question_factories import QaExperiment

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def checked(*flags: str | Path, output: str = "check") -> tuple[int, dict[str, Any]]:
        folder = tmp_path / output
        code = main([*map(str, flags), "--output", str(folder), "--workers", "1"])
        return code, json.loads((folder / "report.json").read_text())

    return checked


def subjects(report: dict[str, Any], kind: str) -> list[str]:
    return [one["subject"] for one in report["findings"][kind]["items"]]


def retrieval(root: Path) -> TinyExperiment:
    experiment = TinyExperiment(root)
    replace_videos(root / "videos")
    return experiment


def test_sound_data_of_retrieval_has_no_problems(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = retrieval(tmp_path)
    code, report = run("--config", experiment.write("config.json", experiment.values))
    assert code == 0, report["findings"]
    assert report["summary"]["problems"] == 0
    assert (report["summary"]["videos"], report["summary"]["readable"]) == (12, 12)
    assert [one["num_texts"] for one in report["sets"]] == [6, 3, 3]
    assert report["checked"]["num_frames"] == experiment.values["num_frm"]
    assert "no problems; report: " in capsys.readouterr().out
    assert "Word pieces: tiny train" in (tmp_path / "check/report.html").read_text()


def test_all_problems_are_reported_at_once(tmp_path: Path, run: Run) -> None:
    experiment = retrieval(tmp_path)
    videos, train = tmp_path / "videos", tmp_path / "txt/train.jsonl"
    (videos / "train0.mp4").unlink()
    (videos / "train1.mp4").write_bytes(b"")
    (videos / "train2.mp4").write_text("no video")
    shutil.copy(videos / "test0.mp4", videos / "train3.mp4")
    write_noisy_clip(videos / "train4.mp4", seed=99, num_frames=1)
    write_noisy_clip(videos / "spare.mp4", seed=100)
    rows = [
        *({"caption": "a red ball", "clip_name": "val0"}, {"caption": "", "clip_name": "val1"}),
        *({"clip_name": "val1"}, {"caption": "a " * 20, "clip_name": "train5"}),
    ]
    with train.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    code, report = run("--config", experiment.write("config.json", experiment.values))
    assert code == 1
    assert subjects(report, "missing") == ["train0"]
    assert subjects(report, "empty_file") == ["train1"]
    assert subjects(report, "unreadable") == ["train2"]
    assert subjects(report, "shared_content") == ["test0"]
    assert subjects(report, "shared_video") == ["val0"]
    assert subjects(report, "too_short") == ["train4"]
    assert subjects(report, "unused") == ["spare"]
    assert subjects(report, "empty_text") == [f"{train}:8"]
    assert subjects(report, "broken_row") == [f"{train}:9"]
    assert subjects(report, "cut_text") == ["a " * 20]
    page = (tmp_path / "check/report.html").read_text()
    assert "problems</b> to be solved" in page
    assert "http" not in page  # nothing is fetched from anywhere


def test_answers_are_looked_up_in_the_label_map(tmp_path: Path, run: Run) -> None:
    experiment = QaExperiment(tmp_path)
    replace_videos(tmp_path / "videos")
    with (tmp_path / "txt/val.jsonl").open("a") as file:
        file.write('{"question": "who", "video_id": "val0", "answer": "an emu"}\n')
    code, report = run("--config", experiment.write("config.json", experiment.values))
    assert code == 0, report["findings"]
    assert "an emu" in subjects(report, "unknown_answer")
    assert {one["rows"] for one in report["sets"]} == {"questions"}


def test_pretraining_has_videos_and_images(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("PIL")
    experiment = PretrainExperiment(tmp_path)
    replace_videos(tmp_path / "videos")
    code, report = run("--config", experiment.write("config.json", experiment.values))
    assert report["summary"]["images"] > 0
    assert {one["rows"] for one in report["sets"]} == {"captioned videos", "captioned images"}
    assert code == (1 if report["summary"]["problems"] else 0)
    assert not report["findings"].keys() & {"unreadable", "missing"}


def test_flags_of_the_script_are_taken_too(tmp_path: Path, run: Run) -> None:
    experiment = retrieval(tmp_path)
    config = experiment.write("config.json", experiment.values)
    _, report = run("--config", config, "--num_frm", "7", "--test_datasets.0.img", tmp_path / "x")
    assert len(subjects(report, "too_short")) == 9
    assert subjects(report, "missing") == [str(tmp_path / "x")]


def test_all_videos_of_a_plain_folder_are_inspected(tmp_path: Path, run: Run) -> None:
    for seed, name in enumerate(["a.mp4", "below/b.mp4"]):
        write_noisy_clip(tmp_path / "videos" / name, seed=seed)
    code, report = run("--videos", tmp_path / "videos")
    assert (code, report["summary"]["videos"]) == (0, 2)
    annotations = tmp_path / "captions.csv"
    annotations.write_text("video_id,caption\na,a dog\na,a dog\nc,a cat\n")
    code, report = run("--videos", tmp_path / "videos", "--annotations", annotations)
    assert code == 1
    assert subjects(report, "missing") == ["c"]
    assert subjects(report, "repeated_row") == ["a"]
    assert subjects(report, "unused") == ["b"]
    assert "word pieces" in report["notices"][0]


def test_frame_folders_and_images_are_inspected(tmp_path: Path, run: Run) -> None:
    for level, name in enumerate(("v/0.jpg", "v/1.jpg", "a.png", "unused.png")):
        write_image(tmp_path / "images" / name, level)
    (tmp_path / "images/empty").mkdir()
    annotations = tmp_path / "captions.csv"
    annotations.write_text("video_id,caption\nv,a dog\na.png,a cat\nb,an ox\nempty,a bee\n")
    code, report = run("--videos", tmp_path / "images", "--annotations", annotations)
    assert (code, report["summary"]["videos"], report["summary"]["images"]) == (1, 2, 2)
    kinds = ("unreadable", "missing", "unused")
    assert [subjects(report, kind) for kind in kinds] == [["empty"], ["b"], ["unused"]]


def test_videos_in_an_lmdb_are_inspected(tmp_path: Path, run: Run) -> None:
    lmdb = pytest.importorskip("lmdb")
    clip = write_noisy_clip(tmp_path / "a.mp4", seed=0).read_bytes()
    videos = {"a": clip, "b": clip, "c": b"no video", "d": b""}
    storage = lmdb.open(str(tmp_path / "videos"), map_size=1 << 24)
    with storage, storage.begin(write=True) as transaction:
        for name, content in videos.items():
            transaction.put(name.encode(), content)
    code, report = run("--videos", tmp_path / "videos")
    assert code == 1
    verdicts = {one["video_id"]: one["verdict"] for one in report["videos"]}
    assert verdicts == {"a": "readable", "b": "readable", "c": "unreadable", "d": "empty_file"}
    assert subjects(report, "duplicate") == ["a"]


def test_no_broken_file_ends_the_check(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(["crashes", "hangs", "locked", "sound"]):
        write_noisy_clip(tmp_path / f"videos/{name}.mp4", seed=seed)
    monkeypatch.setattr("alpro.commands.check_data.probe_pool.probe_item", hang_or_crash)
    call = IsolatedProcess.call

    def impatient(process: IsolatedProcess, function: Any, item: Item) -> Any:
        process.seconds = 0.3 if item.video_id == "hangs" else 60
        return call(process, function, item)

    monkeypatch.setattr(IsolatedProcess, "call", impatient)
    code, report = run("--videos", tmp_path / "videos", "--seconds", "60")
    assert code == 1
    assert sorted(subjects(report, "cut_off")) == ["crashes", "hangs"]
    assert subjects(report, "unreadable") == ["locked"]
    assert [one["verdict"] for one in report["videos"]][-1] == "readable"
    assert all(one["num_bytes"] for one in report["videos"])
    (journal,) = (tmp_path / "check").glob("probes_*.jsonl")
    assert "locked" not in journal.read_text()  # the next time it may be open


def test_inspected_files_are_not_inspected_again(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("ab"):
        write_noisy_clip(tmp_path / f"videos/{name}.mp4", seed=seed)
    _, first = run("--videos", tmp_path / "videos")
    write_noisy_clip(tmp_path / "videos/b.mp4", seed=7, num_frames=3)
    looked_at: list[str] = []

    def run_isolated(_: Any, items: list[Any], **__: Any) -> list[Any]:
        looked_at.extend(item.video_id for item in items)
        return []

    monkeypatch.setattr("alpro.commands.check_data.probe_pool.run_isolated", run_isolated)
    with pytest.raises(KeyError):  # nothing came of b
        run("--videos", tmp_path / "videos")
    assert looked_at == ["b"]
    assert [one["num_frames"] for one in first["videos"]] == [6, 6]


def test_cut_off_videos_are_retried_with_higher_limits(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(["crashes", "sound"]):
        write_noisy_clip(tmp_path / f"videos/{name}.mp4", seed=seed)
    (tmp_path / "videos/text.mp4").write_text("no video")
    looked_at: list[str] = []

    def run_isolated(function: Any, items: list[Any], **__: Any) -> list[Any]:
        looked_at[:] = [item.video_id for item in items]
        cut_off = Failure("took longer than 5 seconds", cut_off=True)
        return [(one, cut_off if one.video_id == "crashes" else function(one)) for one in items]

    monkeypatch.setattr("alpro.commands.check_data.probe_pool.run_isolated", run_isolated)
    videos = tmp_path / "videos"
    expected = {
        ("--seconds", "5"): ["crashes", "sound", "text"],
        ("--seconds", "4"): [],
        ("--seconds", "6"): ["crashes"],
        ("--seconds", "6", "--retry_failed"): ["crashes", "text"],
        ("--seconds", "0"): ["crashes"],
        ("--seconds", "9", "--megabytes", "9999"): ["crashes"],
    }
    for flags, names in expected.items():
        run("--videos", videos, *flags)
        assert looked_at == names, flags


def test_a_folder_that_cannot_be_opened_is_a_problem(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(["open/a.mp4", "closed/b.mp4"]):
        write_noisy_clip(tmp_path / "videos" / name, seed=seed)
    (tmp_path / "videos/open/around").symlink_to(tmp_path / "videos")
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    code, report = run("--videos", tmp_path / "videos")
    assert code == 1
    (found,) = report["findings"]["closed_folder"]["items"]
    assert found["subject"] == str(tmp_path / "videos/closed")
    assert found["told"] == "Permission denied"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--videos", "nowhere"], "folder nowhere not found"),
        (["--videos", "empty"], "--videos empty holds no videos"),
        (["--videos", "a.mp4"], "a.mp4 is a file, not a folder"),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--videos", ".", "--annotations", "nowhere.csv"], "there is no file nowhere.csv"),
    ],
)
def test_wrong_flags_and_folders_are_reported(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_noisy_clip(tmp_path / "a.mp4", seed=0)
    assert main([*flags, "--output", "check"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [[], ["--videos", ".", "--num_frm", "8"], ["--config", "a", "--annotations", "b"]]
)
def test_flags_that_do_not_belong_together_are_refused(flags: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(flags)


def test_ids_that_lead_outside_are_missing_with_the_reason(tmp_path: Path, run: Run) -> None:
    write_noisy_clip(tmp_path / "outside.mp4", seed=0)
    write_noisy_clip(tmp_path / "videos/a.mp4", seed=1)
    (tmp_path / "a.csv").write_text("video_id,caption\na,noise\n../outside,more noise\n")
    code, report = run("--videos", tmp_path / "videos", "--annotations", tmp_path / "a.csv")
    assert code == 1
    (found,) = report["findings"]["missing"]["items"]
    assert (found["subject"], found["told"]) == ("../outside", "the id leads out of the folder")
    assert report["summary"]["videos"] == 1


def test_a_damaged_lmdb_is_reported_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_writer(tmp_path / "db", "lmdb") as writer:
        writer.put("a", bytes(100))
    with (tmp_path / "db/data.mdb").open("rb+") as file:
        file.seek(2 * 4096 + 10)
        file.write(b"\xff" * 6)
    flags = ["--videos", str(tmp_path / "db"), "--output", str(tmp_path / "check")]
    assert main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: videos: {tmp_path}/db/data.mdb is damaged (")
