from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpro.commands.compare_runs import main
from alpro.errors import USER_ERROR_EXIT_CODE


def write(folder: Path, scores: dict[str, object]) -> None:
    results = folder / "results_test/step_best_1_mean"
    results.mkdir(parents=True)
    (results / "scores.json").write_text(json.dumps(scores))


def write_run(folder: Path, *, r1: float, accuracy: float | None = None) -> Path:
    """One seed: retrieval and, if there is an accuracy, question answering."""
    ranked, contrastive = {"r1": r1, "r5": r1 + 20}, {"r1": r1 - 1, "r5": r1 + 19}
    write(folder / "ret", {"text2video": ranked, "text2video_vtc": contrastive})
    if accuracy is not None:
        write(folder / "qa", {"overall_acc": accuracy})
    return folder


def arguments(kinds: dict[str, list[Path]]) -> list[str]:
    return [word for name, dirs in kinds.items() for word in ("--runs", name, *map(str, dirs))]


def cells_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_tables_show_mean_range_and_gain_over_the_first_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = [(30.0, 50.0), (40.0, 52.0), (32.0, 51.0)]
    trained = [(60.0, 58.0), (50.0, 62.0), (58.0, 60.0)]
    kinds = {
        name: [
            write_run(tmp_path / name / f"seed_{seed}", r1=r1, accuracy=accuracy)
            for seed, (r1, accuracy) in enumerate(runs)
        ]
        for name, runs in {"random weights": random, "pretrained": trained}.items()
    }
    assert main(arguments(kinds)) == 0
    out = capsys.readouterr().out
    rows = cells_of(out)
    measures = ["R@1", "R@5", "R@1, VTC only", "R@5, VTC only", "accuracy"]
    assert rows[0] == ["runs", "seeds", *measures]
    spread = ["34.0 (30.0 to 40.0)", "54.0 (50.0 to 60.0)"]
    spread += ["33.0 (29.0 to 39.0)", "53.0 (49.0 to 59.0)"]
    assert rows[2] == ["random weights", "3", *spread, "51.0 (50.0 to 52.0)"]
    assert rows[3][:3] == ["pretrained", "3", "56.0 (50.0 to 60.0)"]
    assert rows[4] == ["gain over random weights", *measures]
    gain = "+22.0 (+10.0 to +30.0)"
    assert rows[6] == ["pretrained", gain, gain, gain, gain, "+9.0 (+8.0 to +10.0)"]
    assert "Percent;" in out


def test_one_kind_with_one_seed_has_a_single_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments({"a": [write_run(tmp_path, r1=30.0)]})) == 0
    head, _, row = cells_of(capsys.readouterr().out)
    assert head == ["runs", "seeds", "R@1", "R@5", "R@1, VTC only", "R@5, VTC only"]
    assert row == ["a", "1", "30.0", "50.0", "29.0", "49.0"]


def test_runs_that_cannot_be_compared_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(*kinds: tuple[str, list[Path]]) -> str:
        words = [word for name, dirs in kinds for word in ("--runs", name, *map(str, dirs))]
        assert main(words) == USER_ERROR_EXIT_CODE
        return capsys.readouterr().err

    one = write_run(tmp_path / "one", r1=1.0)
    both = write_run(tmp_path / "both", r1=1.0, accuracy=2.0)
    assert "'a' 1, 'b' 2" in complaint(("a", [one]), ("b", [one, one]))
    assert "'a' 0" in complaint(("a", []))
    assert "the same name" in complaint(("a", [one]), ("a", [both]))
    assert f"only one of {one} and {both} has results of accuracy" in complaint(
        ("a", [one]), ("b", [both])
    )
    assert "two results of the same task" in complaint(("a", [tmp_path]))
    evaluation = one / "ret/results_test/step_best_1_mean"  # as the remedy says
    assert main(["--runs", "a", str(evaluation)]) == 0
    for name, content in [
        ("cut", b'{"text2video": {"r1": 3'),
        ("list", b"[1]"),
        ("no_vtc", b'{"text2video": {"r1": 3, "r5": 4}}'),
        ("text", b'{"overall_acc": "high"}'),
        ("bytes", b"\xff\xfe"),
    ]:
        write(tmp_path / "damaged" / name, {})
        (path,) = (tmp_path / "damaged" / name).glob("**/scores.json")
        path.write_bytes(content)
        told = complaint(("a", [tmp_path / "damaged" / name]))
        assert told.startswith(f"error: {path}: damaged, or not all scores")
        assert ("'text2video_vtc'" in told) == (name == "no_vtc")
    assert "evaluate the runs first" in complaint(("a", [tmp_path / "nowhere"]))
