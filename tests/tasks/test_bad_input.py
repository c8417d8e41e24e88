"""Users' mistakes: one message that names file and key and says what to do, and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alpro.datasets.annotations import CaptionRow
from tests.factories import VOCABULARY, TinyExperiment, make_model, write_captions, write_videos
from tests.tasks.conftest import Refuse, Run

ROOT = Path(__file__).parents[2]


def test_missing_annotations_and_folders_are_reported_together(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    train = {"name": "gone", "txt": "/gone/train.jsonl", "img": "/gone/videos"}
    test = {**experiment.dataset("test"), "txt": "/gone/test.csv"}
    message = refused(experiment.arguments(train_datasets=[train], test_datasets=[test]))
    assert "train_datasets.0.txt (gone): there is no file /gone/train.jsonl" in message
    assert "train_datasets.0.img (gone): there is no folder /gone/videos" in message
    assert "test_datasets.0.txt (tiny test): there is no file /gone/test.csv" in message
    assert not (experiment.root / "run").exists()


def test_all_missing_inputs_of_training_are_reported_together(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    flags = ("--tokenizer_dir", "/gone/tokenizer", "--val_datasets.0.txt", "/gone/val.jsonl")
    message = refused(experiment.arguments(*flags, "--e2e_weights_path", "/gone/model.pt"))
    assert "val_datasets.0.txt (tiny val): there is no file /gone/val.jsonl" in message
    assert "tokenizer_dir: folder /gone/tokenizer not found" in message
    assert "e2e_weights_path: /gone/model.pt: there is no such checkpoint file" in message
    assert "To train from random weights: --e2e_weights_path null --random_init 1." in message
    weights = ("--visual_weights_path", "/gone/vit", "--bert_weights_path", "/gone/bert")
    message = refused(experiment.arguments(*flags, *weights, "--random_init", "0"))
    for key in ("val_datasets.0.txt", "tokenizer_dir", "visual_weights_path", "bert_weights_path"):
        assert f"{key}" in message
    assert "weights_path" not in refused(experiment.arguments(*flags, *weights))


def test_all_missing_inputs_of_inference_are_reported_together(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    flags = ("--e2e_weights_path", "/gone/model.pt", "--tokenizer_dir", "/gone/tokenizer")
    data = ("--inference_txt_db", "/gone/test.jsonl", "--inference_img_db", "/gone/videos")
    message = refused(experiment.inference(*flags, *data))
    assert "inference_txt_db: there is no file /gone/test.jsonl" in message
    assert "inference_img_db: there is no folder /gone/videos" in message
    assert "tokenizer_dir: folder /gone/tokenizer not found" in message
    assert "e2e_weights_path: /gone/model.pt: there is no such checkpoint file" in message


def test_a_file_in_place_of_a_folder_and_the_reverse_are_refused(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    file, folder = str(experiment.root / "txt/test.jsonl"), str(experiment.root)
    parts = ("--val_datasets.0.img", file, "--val_datasets.0.txt", folder)
    message = refused(experiment.arguments(*parts, "--tokenizer_dir", file))
    assert f"val_datasets.0.img (tiny val): {file} is a file, not a folder" in message
    assert f"val_datasets.0.txt (tiny val): {folder} is a folder, not a file" in message
    assert f"tokenizer_dir: {file} is a file, not a folder" in message


@pytest.mark.parametrize("num_workers", ["0", "1"])
def test_a_folder_of_unreadable_videos_is_named_without_traceback(
    experiment: TinyExperiment, refused: Refuse, num_workers: str
) -> None:
    names = [f"train{i}" for i in range(6)]
    write_videos(experiment.root / "videos", names, broken=names)
    message = refused(
        experiment.arguments("--n_workers", num_workers, "--max_unreadable_fraction", "1")
    )
    assert message.startswith(f"{experiment.root / 'videos'}: 5 videos drawn one after the other")
    assert "DataLoader" not in message


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{'caption': 1}", "JSON"),
        ('{"clip_name": "train0"}', "caption"),
        ('{"caption": "a"}', "clip_name"),
    ],
)
def test_a_bad_annotation_line_is_named(
    experiment: TinyExperiment, refused: Refuse, line: str, complaint: str
) -> None:
    path = experiment.root / "txt/train.jsonl"
    path.write_text(path.read_text() + line + "\n")
    message = refused(experiment.arguments())
    assert f"{path}:7" in message
    assert complaint in message
    assert not (experiment.root / "run").exists()


def test_missing_videos_are_counted_and_ten_are_named(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    rows = [CaptionRow("a ball", f"lost{i:02}") for i in range(12)]
    path = write_captions(experiment.root / "txt/train.jsonl", [*rows, CaptionRow("a", "train0")])
    message = refused(experiment.arguments())
    assert f"12 of the 13 videos named in {path} are not in {experiment.root / 'videos'}" in message
    assert ", ".join(f"lost{i:02}" for i in range(10)) + ", ..." in message
    assert "lost10" not in message
    assert "allow_missing_videos" in message


@pytest.mark.parametrize(
    ("video_id", "reason"), [("../run/a", "leads out of the folder"), ("/a", "is a complete path")]
)
def test_ids_that_lead_out_of_the_folder_are_refused_with_their_row(
    experiment: TinyExperiment, refused: Refuse, video_id: str, reason: str
) -> None:
    write_videos(experiment.root / "run", ["a"])
    rows = [CaptionRow("a ball", name) for name in ("train0", video_id, video_id)]
    path = write_captions(experiment.root / "txt/train.jsonl", rows)
    message = refused(experiment.arguments())
    assert f"1 of the 2 videos named in {path} are not in " in message
    assert f"\nRow 2: id '{video_id}' {reason}; ids name videos within " in message


def test_a_set_without_any_video_is_refused(experiment: TinyExperiment, refused: Refuse) -> None:
    write_captions(experiment.root / "txt/val.jsonl", [CaptionRow("a ball", "lost")])
    message = refused(experiment.arguments("--allow_missing_videos", "1"))
    assert "tiny val: none of the 1 videos" in message


def test_unreadable_evaluation_videos_are_all_listed(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    write_videos(experiment.root / "videos", ["val0", "val2"], broken=["val0", "val2"])
    message = refused(experiment.arguments())
    assert "tiny val: 2 of 3 videos" in message
    assert "  val0: made to be unreadable\n  val2: made to be unreadable\n" in message


def test_too_many_unreadable_training_videos_stop_the_run(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    write_videos(experiment.root / "videos", ["train1"], broken=["train1"])
    message = refused(experiment.arguments())
    assert "of the 6 training samples of epoch 1 could not be read" in message
    assert "  train1: made to be unreadable" in message
    assert "raise max_unreadable_fraction" in message


def test_a_missing_tokenizer_is_named(experiment: TinyExperiment, refused: Refuse) -> None:
    message = refused(experiment.arguments("--tokenizer_dir", "/gone/tokenizer"))
    assert "tokenizer_dir: folder /gone/tokenizer not found" in message
    empty = experiment.root / "empty"
    empty.mkdir()
    message = refused(experiment.arguments("--tokenizer_dir", str(empty)))
    assert f"tokenizer_dir: neither vocab.txt nor tokenizer.json in {empty}" in message


def test_a_vocabulary_of_wrong_size_is_refused(experiment: TinyExperiment, refused: Refuse) -> None:
    with (experiment.root / "tokenizer/vocab.txt").open("a") as file:
        file.write("cube\n")
    message = refused(experiment.arguments())
    size = len(VOCABULARY)
    assert f"has {size + 1} tokens, but the text encoder expects {size}; use" in message


def test_another_architecture_is_refused(experiment: TinyExperiment, refused: Refuse) -> None:
    path = experiment.root / "other.pt"
    state = make_model().state_dict()
    state["vision_proj.weight"] = torch.zeros(5, 32)
    state["extra.weight"] = torch.zeros(1)
    del state["text_proj.bias"]
    torch.save(state, path)
    message = refused(experiment.arguments("--e2e_weights_path", str(path)))
    assert f"{path}: this checkpoint is of another architecture" in message
    assert "the checkpoint lacks: text_proj.bias" in message
    assert "the model does not know: extra.weight" in message
    assert "of another shape: vision_proj.weight: (5, 32) there, (16, 32) here" in message
    assert not (experiment.root / "run").exists()


def test_a_path_of_no_checkpoint_is_refused(experiment: TinyExperiment, refused: Refuse) -> None:
    message = refused(experiment.arguments("--e2e_weights_path", "/gone/model.pt"))
    assert "/gone/model.pt: there is no such checkpoint file" in message
    path = experiment.root / "text_model.json"
    message = refused(experiment.arguments("--e2e_weights_path", str(path)))
    assert f"{path}: not a file of PyTorch weights" in message


def test_a_run_without_weights_is_refused(experiment: TinyExperiment, refused: Refuse) -> None:
    message = refused(experiment.arguments("--random_init", "0"))
    assert "e2e_weights_path: nothing to start from" in message
    assert "visual_weights_path" in message
    assert "random_init" in message


@pytest.mark.parametrize("key", ["visual_weights_path", "bert_weights_path"])
def test_missing_starting_weights_say_where_to_get_them(
    experiment: TinyExperiment, refused: Refuse, key: str
) -> None:
    state = {
        name.removeprefix("visual_encoder.model."): value
        for name, value in make_model().state_dict().items()
        if name.startswith("visual_encoder.")
    }
    torch.save(state, experiment.root / "vit.pth")
    paths = {"visual_weights_path": str(experiment.root / "vit.pth"), key: "/gone/weights"}
    flags = [part for name, path in paths.items() for part in (f"--{name}", path)]
    message = refused(experiment.arguments("--random_init", "0", *flags))
    assert f"{key}: no weights at /gone/weights" in message
    source = "vit_base_patch16_224" if key == "visual_weights_path" else "bert-base-uncased"
    assert source in message
    assert "random_init" in message


def test_the_output_folder_of_another_run_is_refused(
    experiment: TinyExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.arguments())
    before = (experiment.root / "run/log/metrics.jsonl").read_text()
    message = refused(experiment.arguments("--seed", "1", "--n_workers", "0"))
    assert f"output_dir: {experiment.root / 'run'} holds the output of another run" in message
    assert "  seed: 42 there, 1 now\n" in message
    assert "--overwrite 1" in message
    assert (experiment.root / "run/log/metrics.jsonl").read_text() == before


def test_a_run_does_not_resume_with_edited_files(
    experiment: TinyExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.arguments())
    captions = experiment.root / "txt/val.jsonl"
    captions.write_text(captions.read_text().replace("red", "blue"))
    message = refused(experiment.arguments())
    assert f"  {captions} (val_datasets.0.txt): another content than " in message
    assert "train_datasets" not in message
    video_model = experiment.root / "video_model.json"
    video_model.write_text(video_model.read_text().replace('"drop_rate": 0.1', '"drop_rate": 0.2'))
    message = refused(experiment.arguments())
    assert "  visual_model_cfg.drop_rate: 0.1 there, 0.2 now\n" in message


@pytest.mark.parametrize("flags", [(), ("--dry_run", "1")])
def test_an_output_folder_that_is_a_file_is_refused(
    experiment: TinyExperiment, refused: Refuse, flags: tuple[str, ...]
) -> None:
    (experiment.root / "run").touch()
    message = refused(experiment.arguments(*flags))
    assert f"output_dir: {experiment.root / 'run'}: " in message
    assert "is not a folder" in message


def test_a_damaged_run_cannot_resume(experiment: TinyExperiment, run: Run, refused: Refuse) -> None:
    run(experiment.arguments())
    for name in ("restore.pt", "restore_backup.pt"):
        (experiment.root / "run" / name).write_bytes(b"")
    message = refused(experiment.arguments())
    assert "no restore file can be read" in message
    assert message.count("the file is empty") == 2


def test_patterns_must_freeze_something(experiment: TinyExperiment, refused: Refuse) -> None:
    message = refused(experiment.arguments(freeze=["visual_encodr.*"]))
    assert "freeze: the pattern 'visual_encodr.*' matches no parameter" in message


def test_patterns_must_not_freeze_everything(experiment: TinyExperiment, refused: Refuse) -> None:
    message = refused(experiment.arguments("--freeze", "t*", "*"))
    assert "freeze: 't*', '*' leaves no parameter to train" in message
    assert not (experiment.root / "run").exists()


def test_blocks_fit_into_the_training_sets(experiment: TinyExperiment, refused: Refuse) -> None:
    message = refused(experiment.arguments("--shuffle_block_size", "1000000000"))
    assert "shuffle_block_size: blocks of 1,000,000,000 cannot be made of the 6 samples" in message


def test_a_batch_beyond_the_memory_is_refused(experiment: TinyExperiment, refused: Refuse) -> None:
    message = refused(experiment.arguments("--num_frm", "4096", "--crop_img_size", "4096"))
    assert "num_frm 4096, crop_img_size 4096" in message
    assert "GB are free (cpu)" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error_without_traceback(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    assert "device: cuda was asked for" in refused(experiment.arguments("--device", "cuda"))


def test_a_script_reports_missing_files_without_traceback(tmp_path: Path) -> None:
    """The script itself, from another folder: exit code, standard error, all mistakes at once."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"crop_img_sise": 32, "num_frm": "many", "resize_size": 256}))
    script = ROOT / "src/tasks/run_video_retrieval.py"
    done = subprocess.run(
        [sys.executable, str(script), "--config", str(config)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: the configuration has ")
    assert "Traceback" not in done.stderr
    message = " ".join(done.stderr.split())
    for part in ("crop_img_sise", "crop_img_size", "num_frm", '"many"', "output_dir", str(config)):
        assert part in message
