"""Runs are told apart by what their files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alpro.training.identity import (
    Identity,
    changed_values,
    hashes_by_key,
    identity_of,
    moved_paths,
)

SETS = [{"name": "a", "txt": "old/a.jsonl", "img": "videos", "ann": None}]
ARGUMENTS: dict[str, Any] = {
    **{"train_datasets": SETS, "tokenizer_dir": "bert/", "ans2label_path": "./labels.json"},
    **{"e2e_weights_path": "old/start.pt", "visual_model_cfg": "vit.json", "seed": 1},
}
HASHES = {"old/a.jsonl": "one", "labels.json": "two", "bert": "three"}
STORED = {**ARGUMENTS, "annotations_sha256": HASHES}  # as earlier versions have


def identity(arguments: dict[str, Any], **changes: Any) -> Identity:
    return identity_of({**arguments, **changes}, without={"n_gpu"})


def lines(now: Identity, before: Identity | None = None) -> list[str]:
    return [line.strip() for line in changed_values(before or identity(STORED), now)]


def test_hashes_go_by_the_keys_that_name_the_files() -> None:
    assert hashes_by_key(ARGUMENTS, HASHES) == {
        **{"train_datasets.0.txt": "one", "ans2label_path": "two", "tokenizer_dir": "three"}
    }
    sets = [{"txt": {"task": "a.jsonl", "other": "b.jsonl"}}, {"txt": "a.jsonl"}]
    assert hashes_by_key({"val_datasets": sets}, {"a.jsonl": "one", "gone.jsonl": "two"}) == {
        **{"val_datasets.0.txt.task": "one", "val_datasets.1.txt": "one", "gone.jsonl": "two"}
    }


def test_hashes_by_key_stay_as_they_are() -> None:
    by_key = hashes_by_key(ARGUMENTS, HASHES)
    assert hashes_by_key(ARGUMENTS, by_key) == by_key


def test_files_that_have_moved_are_the_same() -> None:
    moved = {
        **{"tokenizer_dir": "new/bert", "ans2label_path": "new/labels.json"},
        **{"e2e_weights_path": "gone.pt", "visual_model_cfg": "new/vit.json"},
        "train_datasets": [{**SETS[0], "txt": "new/a.jsonl", "img": "/scratch/videos"}],
        "annotations_sha256": {"new/a.jsonl": "one", "new/labels.json": "two", "new/bert": "three"},
    }
    now = identity(STORED, **moved)
    assert lines(now) == []
    words = moved_paths(identity(STORED), now)
    assert words["train_datasets.0.img"] == (
        "train_datasets.0.img: videos before, /scratch/videos now"
    )
    assert words.keys() == {
        *("train_datasets.0.txt", "train_datasets.0.img", "tokenizer_dir", "ans2label_path"),
        *("e2e_weights_path", "visual_model_cfg"),
    }


def test_a_file_of_the_same_name_with_another_content_is_another() -> None:
    hashes = {**HASHES, "old/a.jsonl": "changed"}
    line = "old/a.jsonl (train_datasets.0.txt): another content than when the run began"
    assert lines(identity(STORED, annotations_sha256=hashes)) == [line]
    hashes = {**HASHES, "bert": "changed"}
    (line,) = lines(identity(STORED, annotations_sha256=hashes))
    assert line.startswith("bert/ (tokenizer_dir): ")


def test_a_hash_that_was_not_stored_or_is_not_needed_is_ignored() -> None:
    hashes = {name: HASHES[name] for name in ("old/a.jsonl", "labels.json")}
    old = identity(STORED, annotations_sha256={**hashes, "teacher.pt": "four"},
                   teacher_weights_path="teacher.pt")  # fmt: skip
    now = identity(STORED, annotations_sha256=HASHES, teacher_weights_path="gone.pt")
    assert lines(now, old) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seed": 2}, "seed: 1 there, 2 now"),
        ({"e2e_weights_path": None}, "e2e_weights_path: old/start.pt there, null now"),
        ({"visual_model_cfg": None}, "visual_model_cfg: vit.json there, null now"),
        ({"train_datasets": [{**SETS[0], "name": "b"}]}, "train_datasets.0.name: a there, b now"),
        (
            {"train_datasets": [{**SETS[0], "img": None}]},
            "train_datasets.0.img: videos there, null now",
        ),
    ],
)
def test_other_values_are_another_run(changes: dict[str, Any], line: str) -> None:
    assert lines(identity(STORED, **changes)) == [line]


def test_starting_weights_are_others_where_both_files_are_there_and_differ(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.pt" for name in ("old", "same", "other", "longer")}
    for name, content in {"old": "12", "same": "12", "other": "34", "longer": "123"}.items():
        paths[name].write_text(content)
    before = identity(STORED, e2e_weights_path=str(paths["old"]))
    now = {name: identity(STORED, e2e_weights_path=str(path)) for name, path in paths.items()}
    assert lines(now["same"], before) == []
    for name in ("other", "longer"):
        told = f"e2e_weights_path: {paths['old']} there, {paths[name]} now"
        assert lines(now[name], before) == [told]
    paths["old"].unlink()
    assert lines(now["other"], before) == []


def test_keys_of_a_text_encoder_are_no_paths() -> None:
    before, changed = (
        identity(STORED, architecture={"model_config": {"hidden": hidden}}) for hidden in (32, 64)
    )
    assert lines(changed, before) == ["model_config.hidden: 32 there, 64 now"]


@pytest.mark.parametrize("hashes", [None, 5, ["one"], "one"])
def test_hashes_that_are_none_are_as_if_they_were_not_there(hashes: object) -> None:
    told = lines(identity(STORED), identity(STORED, annotations_sha256=hashes))
    assert told == [
        "annotations_sha256.ans2label_path: nothing there, two now",
        "annotations_sha256.train_datasets.0.txt: nothing there, one now",
    ]
