"""The reference pages are what the command writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpro.commands.docs_reference import config_page, main, pages
from alpro.commands.registry import COMMANDS

FOLDER = Path(__file__).parents[2] / "docs/reference"


@pytest.fixture(autouse=True)
def terminal_of_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def rows_of(key: str) -> list[str]:
    return [line for line in config_page().splitlines() if line.startswith(f"| `{key}`")]


def test_committed_pages_are_those_that_the_command_writes(tmp_path: Path) -> None:
    assert main(["--output", str(tmp_path)]) == 0
    for name in pages():
        written = (tmp_path / name).read_text("utf-8")
        assert written == (FOLDER / name).read_text("utf-8"), "run `alpro docs-reference`"


def test_every_command_has_a_section() -> None:
    text = "".join(pages().values())
    assert all(f"\n### alpro {name}\n" in text for name in COMMANDS)
    assert "\n#### alpro bench decode\n" in text


def test_required_flags_are_marked() -> None:
    rows = [row for row in pages()["commands.md"].splitlines() if row.startswith("| `--output`")]
    assert "| `--output`, `--output_dir` | folder for videos, images and texts" in rows[0]
    assert rows[1].startswith("| `--output` | *required*: ")
    (captions,) = [row for row in pages()["commands.md"].splitlines() if "`--captions`" in row]
    assert "*one of these*" in captions


def test_file_names_in_help_texts_are_not_markup() -> None:
    text = pages()["commands.md"]
    assert r"{train_val,test}\_videodatainfo.json, MSRVTT\_\*.csv" in text
    assert "<N>" not in text
    assert r'patterns like "visual_encoder.model.blocks.\*"' in config_page()


def test_defaults_that_differ_by_task_name_their_tasks() -> None:
    row, of_pretraining = rows_of("augmentation")
    assert "| `none` (retrieval), `randaugment` (question answering) |" in row
    both = "| `randaugment` (prompter pretraining, pretraining), `none` (post-pretraining) |"
    assert both in of_pretraining
    rows = rows_of("best_metric")
    assert ["text2video_r1" in row for row in rows] == [True, False, False, False, True]


def test_keys_that_some_tasks_lack_name_those_that_have_them() -> None:
    (row,) = rows_of("frame_order")
    assert "| *Retrieval, question answering, post-pretraining:*" in row
    (row,) = rows_of("num_frm")
    assert "*" not in row


def test_keys_of_a_family_stand_in_its_own_section() -> None:
    framework, family = config_page().split("## Family alpro")
    assert "`visual_model_cfg`" not in framework
    assert "| `visual_model_cfg` | required |" in family
    assert "### Video encoder (visual_model_cfg)" in family
