"""Users' mistakes: one message that names file and key and says what to do, and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from alpro.datasets.annotations import CaptionRow
from tests.datasets.stored import write_tar
from tests.factories import write_captions, write_videos
from tests.pretraining_factories import ENTITIES, PretrainExperiment, make_pretraining_model
from tests.tasks.conftest import Refuse, Run

ROOT = Path(__file__).parents[2]
SCRIPTS = ("run_pretrain_contrastive_only", "run_pretrain_sparse")


def test_all_missing_inputs_are_reported_together(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    flags = ("--train_datasets.0.ann", "/gone/train.csv", "--val_datasets.1.img", "/gone/images")
    files = ("--teacher_weights_path", "/gone/p.pt", "--entity_file_path", "/gone/unigrams.txt")
    message = refused(experiment.pretraining(*flags, *files, "--tokenizer_dir", "/gone/tokenizer"))
    assert "train_datasets.0.ann (tiny train): there is no file /gone/train.csv" in message
    assert "val_datasets.1.img (tiny val images): there is no folder /gone/images" in message
    assert "teacher_weights_path: there is no file /gone/p.pt" in message
    assert "entity_file_path: there is no file /gone/unigrams.txt" in message
    assert "tokenizer_dir: folder /gone/tokenizer not found" in message
    assert not (experiment.root / "run").exists()


def test_images_in_a_tar_file_are_refused(experiment: PretrainExperiment, refused: Refuse) -> None:
    shards = write_tar(experiment.root / "shards.tar", {"a.mp4": b""})
    sets = ("--train_datasets.0.img", str(shards), "--val_datasets.1.img", str(shards))
    gone = ("--train_datasets.0.ann", "/gone/train.csv")
    message = refused(experiment.pretraining(*sets, *gone))
    assert f"val_datasets.1.img (tiny val images): {shards} is a file, not a folder" in message
    assert "train_datasets.0.img" not in message


def test_videos_missing_in_shards_are_named(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    shards = write_tar(experiment.root / "shards.tar", {"a.mp4": b""})
    message = refused(experiment.pretraining("--val_datasets.0.img", str(shards)))
    assert f"is in the shard {shards}: val0" in message


def test_the_entity_loss_requires_entities_and_a_teacher(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    message = refused(experiment.pretraining(teacher_weights_path=None, entity_file_path=None))
    assert "teacher_weights_path" in message
    assert "entity_file_path" in message
    assert "alpro extract-entities" in message


def test_a_file_that_is_no_teacher_is_refused(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    path = experiment.root / "text_model.json"
    message = refused(experiment.pretraining("--teacher_weights_path", str(path)))
    assert f"teacher_weights_path: {path}: not a file of PyTorch weights" in message
    state = torch.load(experiment.teacher, weights_only=True)
    del state["vision_proj.weight"]
    torch.save(state, experiment.teacher)
    message = refused(experiment.pretraining())
    assert f"teacher_weights_path: {experiment.teacher}: this checkpoint is of another" in message
    assert "the checkpoint lacks: vision_proj.weight" in message


@pytest.fixture
def reads_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake is reported before millions of rows are read."""
    monkeypatch.delattr("alpro.tasks.pretraining.data.load_dataset")


@pytest.mark.usefixtures("reads_no_rows")
def test_a_list_of_too_few_entities_is_refused(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    message = refused(experiment.pretraining("--num_entities", "6"))
    assert f"{experiment.root / 'entities.txt'}: 5 entities, but num_entities is 6" in message
    assert not (experiment.root / "run").exists()


@pytest.mark.usefixtures("reads_no_rows")
def test_a_list_of_too_few_entities_for_a_given_teacher_is_refused(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    path = experiment.root / "pretrained.pt"
    torch.save(make_pretraining_model(num_entities=6).state_dict(), path)
    message = refused(experiment.pretraining("--num_entities", "6", e2e_weights_path=str(path)))
    assert f"{experiment.root / 'entities.txt'}: 5 entities, but num_entities is 6" in message


def test_entities_that_differ_from_the_checkpoints_are_refused(
    experiment: PretrainExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.pretraining(num_train_epochs=1))
    path = experiment.root / "entities.txt"
    path.write_text("ball 9\nbox\ngreen\nred\nblue\nred\n")
    start = experiment.root / "run/ckpt/model_step_best.pt"
    message = refused(experiment.pretraining(e2e_weights_path=str(start), output="next"))
    copy = experiment.root / "run/log/entities.txt"
    assert message == (
        f"entity_file_path: {path} is not the list that {start} was pretrained with, {copy}: "
        f"entity 3 is 'red' there, 'green' here. Give --entity_file_path {copy}.\n"
    )
    flags = ("--entity_file_path", str(copy), "--dry_run", "1")
    run(experiment.pretraining(*flags, e2e_weights_path=str(start), output="next"))


def test_a_missing_teacher_is_named(experiment: PretrainExperiment, refused: Refuse) -> None:
    path = experiment.root / "pretrained.pt"
    torch.save(make_pretraining_model(num_entities=None).state_dict(), path)
    experiment.teacher.unlink()
    message = refused(experiment.pretraining(e2e_weights_path=str(path)))
    assert f"teacher_weights_path: there is no file {experiment.teacher}" in message


@pytest.mark.usefixtures("reads_no_rows")
def test_an_entity_that_is_too_long_is_refused(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    path = experiment.root / "entities.txt"
    path.write_text("\n".join([*ENTITIES[:4], "[SEP]" * 20]))
    message = refused(experiment.pretraining())
    assert "entity_file_path: the prompt 'A footage of a [SEP][SEP]" in message


@pytest.mark.usefixtures("reads_no_rows")
def test_entities_unknown_to_the_tokenizer_are_refused(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    path = experiment.root / "entities.txt"
    path.write_text("ball\nzebra\nbox\ntapir\nred\n")
    message = refused(experiment.pretraining())
    assert f"entity_file_path: {path}: the tokenizer does not know 'zebra', 'tapir'." in message
    assert "Take these entities out of the file" in message


@pytest.mark.usefixtures("reads_no_rows")
def test_a_checkpoint_of_another_number_of_entities_is_refused(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    path = experiment.root / "pretrained.pt"
    torch.save(make_pretraining_model(num_entities=7).state_dict(), path)
    message = refused(experiment.pretraining("--e2e_weights_path", str(path)))
    assert f"e2e_weights_path: {path} was pretrained with 7 entities, num_entities is 5" in message


@pytest.mark.usefixtures("reads_no_rows")
def test_a_checkpoint_without_a_teacher_needs_one(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    path = experiment.root / "pretrained.pt"
    torch.save(make_pretraining_model(num_entities=None).state_dict(), path)
    message = refused(experiment.pretraining(e2e_weights_path=str(path), teacher_weights_path=None))
    assert f"e2e_weights_path: {path} holds no prompter" in message
    assert "Give teacher_weights_path the checkpoint of one, or set use_mpm to 0." in message


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("train.csv", "videoid,name\ntrain0,\n", "name"),
        ("train.csv", "videoid,words\ntrain0,a ball\n", "text"),
        ("train_images.json", '[{"image": "train0.png"}]', "caption"),
        ("train_images.json", "[]", "no image"),
        ("val.jsonl", '{"text": "a ball"}\n', "video_id"),
    ],
)
def test_a_bad_annotation_file_is_named(
    experiment: PretrainExperiment, refused: Refuse, file: str, text: str, complaint: str
) -> None:
    path = experiment.root / "txt" / file
    path.write_text(text)
    message = refused(experiment.pretraining())
    assert str(path) in message
    assert complaint in message
    assert not (experiment.root / "run").exists()


def test_missing_videos_are_counted(
    experiment: PretrainExperiment, run: Run, refused: Refuse
) -> None:
    rows = [CaptionRow("a ball", name) for name in ("lost0", "val0", "val1")]
    path = write_captions(experiment.root / "txt/val.jsonl", rows)
    message = refused(experiment.pretraining())
    assert f"1 of the 3 videos named in {path} are not in" in message
    assert "lost0" in message
    assert "allow_missing_videos" in message
    run(experiment.pretraining("--allow_missing_videos", "1", num_train_epochs=1))
    log = (experiment.root / "run/log/log.txt").read_text()
    assert f"tiny val ({path}): 2 pairs" in log


def test_ids_without_their_leading_zeros_get_a_hint(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    write_videos(experiment.root / "videos", ["0007"])
    rows = [CaptionRow("a ball", name) for name in ("7", "val0")]
    write_captions(experiment.root / "txt/val.jsonl", rows)
    message = refused(experiment.pretraining())
    assert "are not in" in message
    hint = "The folder has 0007.mp4 for id 7; have the ids lost leading zeros?"
    assert f"\n{hint}\nAdd them, or" in message


def images_only(experiment: PretrainExperiment) -> dict[str, Any]:
    return {"train_datasets": [experiment.images("train")]}


def test_missing_images_are_counted_before_training(
    experiment: PretrainExperiment,
    refused: Refuse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (experiment.root / "images/train1.png").unlink()
    sets: dict[str, Any] = {
        "train_datasets": [experiment.dataset("train"), experiment.images("train")]
    }
    message = refused(experiment.pretraining("--dry_run", "1", **sets))
    path, folder = experiment.root / "txt/train_images.json", experiment.root / "images"
    assert message == (
        f"train_datasets.1.img (tiny train images): 1 of the 4 images named in {path} are not in "
        f"{folder}: train1.png\n"
        "Add them, or set allow_missing_videos to 1 to go on without them.\n"
    )
    monkeypatch.chdir(experiment.root)
    message = refused(experiment.pretraining("--train_datasets.1.img", "null", **sets))
    assert "train_datasets.1.img (tiny train images): none of the 4 images named in" in message
    assert "is in the current folder, where paths start as img is null: train0.png" in message


def test_missing_images_of_large_sets_are_reported_when_read(
    experiment: PretrainExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (experiment.root / "images/train1.png").unlink()
    monkeypatch.setattr("alpro.tasks.pretraining.data.MAX_IMAGES_CHECKED", 3)
    flags = ("--max_unreadable_fraction", "1")
    run(experiment.pretraining(*flags, **images_only(experiment), num_train_epochs=1))


def test_missing_images_count_as_unreadable(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    (experiment.root / "images/train1.png").unlink()
    flags = ("--allow_missing_videos", "1")
    message = refused(experiment.pretraining(*flags, **images_only(experiment)))
    assert "of the 4 training samples of epoch 1 could not be read" in message
    assert f"  train1.png: no file {experiment.root / 'images/train1.png'}" in message
    assert "raise max_unreadable_fraction" in message


def test_a_folder_without_any_of_the_images_is_refused(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    for index in range(4):
        (experiment.root / f"images/train{index}.png").unlink()
    flags = ("--allow_missing_videos", "1")
    message = refused(experiment.pretraining(*flags, **images_only(experiment)))
    assert "train_datasets.0.img (tiny train images): none of the 4 images named in" in message
    assert f"is in {experiment.root / 'images'}: train0.png, train1.png" in message
    assert "Name the right folder" in message


def test_unreadable_validation_videos_are_all_listed(
    experiment: PretrainExperiment, refused: Refuse
) -> None:
    write_videos(experiment.root / "videos", ["val0", "val2"], broken=["val0", "val2"])
    message = refused(experiment.pretraining())
    assert "tiny val: 2 of 3 videos" in message
    assert "  val0: made to be unreadable\n  val2: made to be unreadable\n" in message


def test_a_run_does_not_resume_with_another_list_of_entities(
    experiment: PretrainExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.pretraining(num_train_epochs=1))
    path = experiment.root / "entities.txt"
    path.write_text("\n".join(reversed(ENTITIES)))
    message = refused(experiment.pretraining(num_train_epochs=1))
    assert f"output_dir: {experiment.root / 'run'} holds the output of another run" in message
    assert f"  {path} (entity_file_path): another content than when the run began" in message


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_reports_missing_files_without_traceback(tmp_path: Path, script: str) -> None:
    """The script itself, from another folder: exit code, standard error, all mistakes at once."""
    config = tmp_path / "config.json"
    config.write_text('{"crop_img_sise": 32, "num_frm": "many"}')
    done = subprocess.run(
        [sys.executable, str(ROOT / f"src/pretrain/{script}.py"), "--config", str(config)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: the configuration has ")
    message = " ".join(done.stderr.split())
    for part in ("crop_img_sise", "crop_img_size", "num_frm", '"many"', "output_dir", str(config)):
        assert part in message
