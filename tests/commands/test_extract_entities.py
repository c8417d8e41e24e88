from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from alpro.commands import extract_entities as tool
from alpro.commands.extract_entities import main
from alpro.errors import FAILURE_EXIT_CODE, USER_ERROR_EXIT_CODE
from alpro.tasks.pretraining.annotations import read_entities
from tests.shared_data import shared_data

pytest.importorskip("HanTa")

SHARED = shared_data()
SET = {"name": "any", "img": "videos"}
QA = {"task": "msvd_qa", "ans2label_path": "labels.json"}


def write_rows(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture
def videos(tmp_path: Path) -> str:
    texts = ("a dog runs", "a dog sees a cat", "two dogs in a car")
    rows = [{"text": text, "video_id": str(number)} for number, text in enumerate(texts)]
    return write_rows(tmp_path / "videos.jsonl", *rows)


def run(tmp_path: Path, config: dict[str, Any], *flags: str) -> int:
    """Run the tool with this config; the list goes to ``list.txt``."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    output = [] if "entity_file_path" in config else ["--output_file", str(tmp_path / "list.txt")]
    return main(["--config", str(path), "--n_workers", "1", *output, *flags])


def test_a_list_of_videos_and_images_is_written(tmp_path: Path, videos: str) -> None:
    images = tmp_path / "images.json"
    images.write_text(
        json.dumps(
            [
                {"image": "1.jpg", "caption": ["a car", "a red car on a road"]},
                {"image": "2.jpg", "caption": "a road"},
            ]
        )
    )
    config = {"train_datasets": [{**SET, "ann": videos, "txt": None}, {**SET, "ann": str(images)}]}
    assert run(tmp_path, config) == 0
    assert (tmp_path / "list.txt").read_text() == "car 3\ndog 3\nroad 2\ncat 1\n"
    assert read_entities(tmp_path / "list.txt", num_entities=4) == ("car", "dog", "road", "cat")


def test_the_config_sets_path_and_number_of_entities(
    tmp_path: Path, videos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "txt/entities.txt"
    config = {"train_datasets": [{**SET, "txt": videos}], "entity_file_path": str(path)}
    assert run(tmp_path, {**config, "num_entities": 2}) == 0
    assert path.read_text() == "dog 3\ncar 1\n"
    out = capsys.readouterr().out
    assert "3 captions (3 different)" in out
    assert "captions per second" in out
    assert "2 of 3 nouns, from 'dog' (3 times) to 'car' (1 time)" in out


def test_questions_are_read_of_a_config_of_question_answering(tmp_path: Path) -> None:
    row = {"question": "what is the boy eating?", "video_id": "a", "answer": "rice"}
    txt = {"msvd_qa": write_rows(tmp_path / "questions.jsonl", row), "other": "none.jsonl"}
    assert run(tmp_path, {"train_datasets": [{**SET, "txt": txt}], **QA}) == 0
    assert (tmp_path / "list.txt").read_text() == "boy 1\n"


def test_captions_are_read_of_a_config_of_retrieval(tmp_path: Path) -> None:
    txt = write_rows(tmp_path / "captions.jsonl", {"caption": "a boy eats", "clip_name": "a"})
    assert run(tmp_path, {"train_datasets": [{**SET, "txt": txt, "ann": "none.jsonl"}]}) == 0
    assert (tmp_path / "list.txt").read_text() == "boy 1\n"


def test_a_stored_config_names_its_own_task(tmp_path: Path, videos: str) -> None:
    path = Path(videos)
    path.write_text(path.read_text().replace('"text"', '"name"'))  # as only pretraining has it
    config = {"script": "src/pretrain/run_pretrain_sparse.py"}
    assert run(tmp_path, {**config, "train_datasets": [{**SET, "txt": videos}]}) == 0
    assert (tmp_path / "list.txt").read_text() == "dog 3\ncar 1\ncat 1\n"


def test_the_number_of_processes_does_not_change_the_list(
    tmp_path: Path, videos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "CAPTIONS_PER_JOB", 2)
    config = {"train_datasets": [{**SET, "ann": videos}] * 2}
    assert run(tmp_path, config) == 0
    alone = (tmp_path / "list.txt").read_text()
    assert alone == "dog 6\ncar 2\ncat 2\n"
    assert run(tmp_path, config, "--n_workers", "2", "--overwrite") == 0
    assert (tmp_path / "list.txt").read_text() == alone


def test_rows_that_training_skips_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ({"text": "a dog", "video_id": "1", "txt_len": 2},
            {"text": "a cat", "video_id": "2", "txt_len": 90})  # fmt: skip
    ann = write_rows(tmp_path / "videos.jsonl", *rows)
    assert run(tmp_path, {"train_datasets": [{**SET, "ann": ann}]}) == 0
    assert (tmp_path / "list.txt").read_text() == "dog 1\n"
    assert "1 row left out" in capsys.readouterr().out


def test_another_list_is_not_replaced(
    tmp_path: Path, videos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"train_datasets": [{**SET, "ann": videos}]}
    assert run(tmp_path, config) == 0
    assert run(tmp_path, config) == 0  # it says the same
    assert run(tmp_path, config, "--num_entities", "1") == USER_ERROR_EXIT_CODE
    assert "list.txt exists with other content: add --overwrite" in capsys.readouterr().err
    assert run(tmp_path, config, "--num_entities", "1", "--overwrite") == 0
    assert (tmp_path / "list.txt").read_text() == "dog 3\n"


def test_an_equal_list_is_kept_and_another_replaced_atomically(
    tmp_path: Path, videos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"train_datasets": [{**SET, "ann": videos}]}
    assert run(tmp_path, config) == 0
    written: list[Path] = []

    def stop(path: Path, _text: object) -> None:
        written.append(path)
        raise OSError("no space left")

    monkeypatch.setattr(tool, "write_text", stop)
    assert run(tmp_path, config, "--overwrite") == 0
    assert written == []
    assert run(tmp_path, config, "--overwrite", "--num_entities", "1") == USER_ERROR_EXIT_CODE
    assert written == [tmp_path / "list.txt"]
    assert (tmp_path / "list.txt").read_text() == "dog 3\ncar 1\ncat 1\n"


def test_a_full_disk_is_one_message(
    tmp_path: Path,
    videos: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    assert run(tmp_path, {"train_datasets": [{**SET, "ann": videos}]}) == FAILURE_EXIT_CODE
    error = capsys.readouterr().err
    assert f"error: {tmp_path / 'list.txt'}: cannot be written: No space left on device." in error
    assert not (tmp_path / "list.txt").exists()


@pytest.mark.parametrize("where", ["flag", "config"])
def test_fewer_nouns_than_asked_for_are_an_error(
    tmp_path: Path, videos: str, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    config: dict[str, Any] = {"train_datasets": [{**SET, "ann": videos}]}
    flags = ["--num_entities", "4"] if where == "flag" else []
    config |= {"num_entities": 4} if where == "config" else {}
    assert run(tmp_path, config, *flags) == USER_ERROR_EXIT_CODE
    error = capsys.readouterr().err
    remedy = "--num_entities: the" if where == "flag" else "set num_entities to 3 at most"
    assert remedy in error
    assert ("config.json" in error) == (where == "config")
    assert "3 at most, or --num_entities 0 for all of them" in error
    assert not (tmp_path / "list.txt").exists()


def test_captions_of_another_language_get_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", {"text": "собака бежит", "video_id": "1"})
    config = {"train_datasets": [{**SET, "ann": rows}]}
    assert run(tmp_path, config) == USER_ERROR_EXIT_CODE
    assert "no nouns that the English tagger knows" in capsys.readouterr().err


def test_zero_entities_takes_all_nouns(
    tmp_path: Path, videos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "DEFAULT_NUM_ENTITIES", 1)
    config = {"train_datasets": [{**SET, "ann": videos}], "num_entities": 600}
    assert run(tmp_path, config, "--num_entities", "0") == 0
    assert (tmp_path / "list.txt").read_text() == "dog 3\ncar 1\ncat 1\n"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "train_datasets must be a list"),
        ({"train_datasets": []}, "train_datasets must be a list"),
        ({"train_datasets": {}}, "train_datasets is {}; expected a list of objects"),
        ({"train_datasets": ["a"]}, "expected a list of objects"),
        ({"train_datasets": [{"ann": "a.csv"}]}, "train_datasets.0.name is missing"),
        ({"train_datasets": [SET]}, 'train_datasets.0 names no annotation file: set "ann" or'),
        (
            {"train_datasets": [{**SET, "txt": {"other": "a"}}], **QA},
            'train_datasets.0 names no annotation file: set "txt"',
        ),
        (
            {"train_datasets": [{**SET, "ann": "none.jsonl"}]},
            "none.jsonl: there is no such file",
        ),
        (
            {"train_datasets": [{**SET, "ann": "a.csv", "media": "images"}]},
            'train_datasets.0.media is "images"; expected one of auto, video, image',
        ),
        ({"num_entities": "12"}, 'num_entities is "12"; expected a whole number, at least 1'),
        ({"num_entities": 0}, "num_entities is 0; expected a whole number, at least 1"),
        ({"num_entities": True}, "num_entities is true; expected a whole number"),
        ({"entity_file_path": 3}, "entity_file_path is 3; expected text"),
    ],
)
def test_mistakes_in_the_config_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, Any], message: str
) -> None:
    assert run(tmp_path, config) == USER_ERROR_EXIT_CODE
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_config_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "none.json"]) == USER_ERROR_EXIT_CODE
    assert "none.json: there is no such file (named by --config)" in capsys.readouterr().err


@pytest.mark.skipif(SHARED is None, reason="needs the shared captions and entity list")
def test_the_most_frequent_nouns_are_those_of_a_published_list(tmp_path: Path) -> None:
    assert SHARED is not None
    annotations = SHARED / "real/annotations"
    published = read_entities(annotations / "unigrams_msrvtt10k_nltk.txt", num_entities=1000)
    txt = str(annotations / "msrvtt_ret/test.jsonl")
    assert run(tmp_path, {"train_datasets": [{**SET, "txt": txt}]}, "--num_entities", "100") == 0
    found = read_entities(tmp_path / "list.txt", num_entities=100)
    assert len(set(found) & set(published[:100])) >= 60
    assert len(set(found) & set(published)) >= 95
