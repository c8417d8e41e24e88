"""Question answering from command line to files, in this process, over fake videos."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from alpro.tasks.question_answering.annotations import QuestionRow, read_questions
from tests.factories import FakeDecoder
from tests.question_factories import ANSWERS, QaExperiment, write_questions
from tests.tasks.conftest import Refuse, Run, content
from tests.training.toys import KilledError, assert_same_run, metric_lines

RESULTS = "results_test/step_best_1_mean"


def test_training_writes_checkpoints_logs_and_results(
    qa_experiment: QaExperiment, run_qa: Run
) -> None:
    run_qa(qa_experiment.arguments())
    root = qa_experiment.root / "run"
    # 6 videos with 4 questions each, one without label, in groups of 2: 12 samples, 4 batches
    arguments = content(root / "log/args.json")
    assert arguments["num_train_steps"] == 8
    sets = {f"{name}_datasets.0.txt" for name in ("train", "val", "test")}
    hashed = arguments["annotations_sha256"].keys()
    assert hashed == sets | {"ans2label_path", "tokenizer_dir"}
    log = (root / "log/log.txt").read_text()
    assert "tiny train: 23 questions, 6 videos to train on\n" in log
    labels = qa_experiment.root / "ans2label.json"
    assert arguments["num_left_out_questions"] == 1
    assert content(root / "log/ans2label.json") == content(labels)
    assert arguments["script"] == "src/tasks/run_video_qa.py"
    validations = [line for line in metric_lines(root) if line["split"] == "valid"]
    names = {"overall_acc", "top5_acc", "what_acc", "who_acc", "how_acc", "which way_acc", "loss"}
    assert names <= validations[0].keys()
    updates = [line for line in metric_lines(root) if line["split"] == "train"]
    assert {"loss", "acc", "lr", "grad_norm"} <= updates[0].keys()
    weights = torch.load(root / "ckpt/model_step_best.pt", weights_only=True)
    assert weights["classifier.2.weight"].shape == (1500, 64)
    assert "text_encoder.embeddings.word_embeddings.weight" in weights


def test_results_are_in_the_originals_shape(qa_experiment: QaExperiment, run_qa: Run) -> None:
    run_qa(qa_experiment.arguments())
    folder = qa_experiment.root / "run" / RESULTS
    scores, records = content(folder / "scores.json"), content(folder / "results_all.json")
    rows = read_questions(qa_experiment.root / "txt/test.jsonl")
    assert [record["question_id"] for record in records] == list(range(len(rows)))
    for record, row in zip(records, rows, strict=True):
        assert record["data"] == {
            **{"question": row.question, "vid_id": row.video_id, "answer": row.answer},
            **{"question_id": record["question_id"], "answer_type": row.answer_type},
        }
        assert ANSWERS[record["answer"]] == record["answer_text"] == record["top5"][0]["answer"]
    right = [record["answer_text"] == record["data"]["answer"] for record in records]
    assert scores["overall_acc"] == round(100 * sum(right) / len(right), 2)
    assert scores["counts"]["overall"] == [sum(right), 12]
    assert scores["ratios"] == {
        f"{kind}_ratio": [25.0, 3] for kind in ("what", "who", "how", "which way")
    }
    protocol = scores["protocol"]
    expected = {
        **{"num_questions": 12, "num_unanswerable_questions": 1},
        **{"num_videos": 3, "num_answers": 9},
    }
    assert {key: protocol[key] for key in expected} == expected


def test_inference_repeats_the_test_of_the_training_run(
    qa_experiment: QaExperiment, run_qa: Run
) -> None:
    run_qa(qa_experiment.arguments())
    folder = qa_experiment.root / "run" / RESULTS
    trained = content(folder / "results_all.json")
    run_qa(qa_experiment.inference("--inference_batch_size", "2"))  # as in the training run
    assert content(folder / "results_all.json") == trained


def test_questions_about_a_video_share_one_decode(
    qa_experiment: QaExperiment, run_qa: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_qa(qa_experiment.arguments())
    decoder = FakeDecoder()
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: decoder)
    run_qa(qa_experiment.inference())
    assert decoder.reads == {"test0": 1, "test1": 1, "test2": 1}


def test_several_clips_have_results_of_their_own(qa_experiment: QaExperiment, run_qa: Run) -> None:
    run_qa(qa_experiment.arguments())
    for how in ("max", "lse"):
        run_qa(qa_experiment.inference("--inference_n_clips", "3", "--score_agg_func", how))
        scores = content(qa_experiment.root / f"run/results_test/step_best_3_{how}/scores.json")
        assert scores["protocol"]["num_clips"] == 3
        assert scores["protocol"]["clip_aggregation"] == how


def test_a_killed_run_resumes_bit_for_bit(
    qa_experiment: QaExperiment, run_qa: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = qa_experiment.arguments(output="killed")
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise KilledError

        patch.setattr("alpro.training.checkpoints.CheckpointWriter.save", die)
        with pytest.raises(KilledError):
            run_qa([*killed, "--min_valid_steps", "6", "--save_steps_ratio", "0.4"])
    run_qa([*killed, "--min_valid_steps", "6", "--save_steps_ratio", "0.4"])
    whole = qa_experiment.arguments(output="whole")
    run_qa([*whole, "--min_valid_steps", "6", "--save_steps_ratio", "0.4"])
    assert_same_run(qa_experiment.root / "whole", qa_experiment.root / "killed")


def test_unreadable_videos_are_listed_or_left_out(
    qa_experiment: QaExperiment, run_qa: Run, refused_qa: Refuse
) -> None:
    run_qa(qa_experiment.arguments())
    (qa_experiment.root / "videos/test1.mp4").write_text("broken")
    message = refused_qa(qa_experiment.inference())
    assert "1 of 3 videos" in message
    assert "test1: made to be unreadable" in message
    run_qa(qa_experiment.inference("--allow_missing_videos", "1"))
    protocol = content(qa_experiment.root / "run" / RESULTS / "scores.json")["protocol"]
    assert (protocol["num_questions"], protocol["num_left_out_questions"]) == (8, 4)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ({"ball": 0, "box": 2}, "missing: 1; out of range: 2 ('box')"),
        ({"ball": 0, "box": 0}, "given to several answers: 0 ('ball', 'box')"),
        ({"ball": "0"}, "the label of 'ball' must be a whole number, not str ('0')"),
        (["ball"], "a JSON object is expected, not list"),
        ({}, "no answer in this file"),
    ],
)
def test_labels_that_do_not_number_the_answers_are_refused(
    qa_experiment: QaExperiment, refused_qa: Refuse, labels: Any, complaint: str
) -> None:
    path = qa_experiment.write("odd.json", labels)
    message = refused_qa(qa_experiment.arguments("--ans2label_path", str(path)))
    assert f"{path}: " in message
    assert complaint in message


def test_missing_labels_are_reported_with_the_other_missing_files(
    qa_experiment: QaExperiment, refused_qa: Refuse
) -> None:
    flags = ("--ans2label_path", "/none.json", "--tokenizer_dir", "/none")
    message = refused_qa(qa_experiment.arguments(*flags))
    assert "ans2label_path: there is no file /none.json." in message
    assert "tokenizer_dir: folder /none not found" in message


def test_a_map_of_tasks_names_the_questions(qa_experiment: QaExperiment, run_qa: Run) -> None:
    sets: dict[str, Any] = {
        f"{split}_datasets": [{**part, "txt": {"tiny_qa": part["txt"], "other": "unused"}}]
        for split in ("train", "val", "test")
        for part in [qa_experiment.dataset(split)]
    }
    run_qa(qa_experiment.arguments(**sets))
    assert (qa_experiment.root / "run" / RESULTS / "scores.json").is_file()


def test_msvd_videos_may_be_avi(qa_experiment: QaExperiment, run_qa: Run) -> None:
    folder = qa_experiment.root / "videos"
    for path in list(folder.glob("*.mp4")):
        (folder / f"{path.stem}.avi").write_text(path.read_text())
        path.write_text("broken")
    run_qa(qa_experiment.arguments(task="msvd_qa"))


def test_a_dry_run_writes_nothing(
    qa_experiment: QaExperiment, run_qa: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run_qa(qa_experiment.arguments("--dry_run", "1"))
    assert "dry run: one batch went through, loss" in capsys.readouterr().err
    assert not (qa_experiment.root / "run").exists()


def test_a_finished_run_that_is_overwritten_leaves_no_results(
    qa_experiment: QaExperiment, run_qa: Run
) -> None:
    run_qa(qa_experiment.arguments())
    folder = qa_experiment.root / "run" / RESULTS
    assert len(list(folder.iterdir())) == 4
    run_qa(qa_experiment.arguments("--overwrite", "1", test_datasets=[]))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("split", ["val", "test"])
def test_answer_types_that_are_names_of_other_metrics_are_refused_at_once(
    qa_experiment: QaExperiment, refused_qa: Refuse, split: str
) -> None:
    path = qa_experiment.root / f"txt/{split}.jsonl"
    rows = [QuestionRow("what is it", f"{split}0", "ball", kind) for kind in ("what", "top5")]
    write_questions(path, rows)
    message = refused_qa(qa_experiment.arguments())
    assert f"{path}: answer_type cannot be 'top5', which would be mistaken for" in message
    assert not (qa_experiment.root / "run").exists()


def test_missing_files_that_the_trained_run_named_are_reported_with_their_origin(
    qa_experiment: QaExperiment, run_qa: Run, refused_qa: Refuse
) -> None:
    run_qa(qa_experiment.arguments())
    root = qa_experiment.root
    (root / "ans2label.json").rename(root / "moved.json")
    (root / "tokenizer").rename(root / "moved")
    message = refused_qa(qa_experiment.inference())
    stored = f"This is from {root / 'run/log/args.json'}"
    missing = f"ans2label_path: there is no file {root / 'ans2label.json'}."
    kept = root / "run/log/ans2label.json"
    assert f"{missing} {stored}; give --ans2label_path {kept}.\n" in message
    assert f"{stored}; give --tokenizer_dir DIR.\n" in message
    tokenizer = ("--tokenizer_dir", str(root / "moved"))
    run_qa(qa_experiment.inference("--ans2label_path", str(root / "moved.json"), *tokenizer))
    run_qa(qa_experiment.inference("--ans2label_path", str(kept), *tokenizer))
    kept.unlink()
    message = refused_qa(qa_experiment.inference())
    assert f"{missing} {stored}; give --ans2label_path FILE.\n" in message
    message = refused_qa(qa_experiment.inference("--ans2label_path", "/gone", *tokenizer))
    assert "ans2label_path: there is no file /gone.\n" in message
