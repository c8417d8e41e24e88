"""Question answering from command line to files, in this process, over made-up videos."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.datasets.decoding import FrameSelector
from src.datasets.questions import QuestionRow, read_questions
from tests.factories import MadeUpDecoder, TinyExperiment
from tests.question_factories import ANSWERS, UNKNOWN_ANSWER, QaExperiment, write_questions
from tests.tasks.conftest import Refuse, Run
from tests.training.toys import KilledError, assert_same_run, metric_lines

RESULTS = "results_test/step_best_1_mean"


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def test_training_leaves_everything_behind(qa_experiment: QaExperiment, run_qa: Run) -> None:
    run_qa(qa_experiment.arguments())
    root = qa_experiment.root / "run"
    # 6 videos with 4 questions each, one without label, in groups of 2: 12 samples, 4 batches
    arguments = content(root / "log/args.json")
    assert arguments["num_train_steps"] == 8
    hashed = [Path(path).name for path in arguments["annotations_sha256"]]
    assert sorted(hashed) == ["ans2label.json", "test.jsonl", "train.jsonl", "val.jsonl"]
    log = (root / "log/log.txt").read_text()
    assert "tiny train: 23 questions about 6 videos to train on\n" in log
    assert "tiny train: 1 of the 24 questions are left out, their answers are not in" in log
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


class CountingDecoder(MadeUpDecoder):
    """Counts how often each video is read."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()

    def read(self, path: Path, select: FrameSelector, *, height: int, width: int) -> np.ndarray:
        self.reads[path.stem] += 1
        return super().read(path, select, height=height, width=width)


def test_questions_about_a_video_share_one_decode(
    qa_experiment: QaExperiment, run_qa: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_qa(qa_experiment.arguments())
    decoder = CountingDecoder()
    monkeypatch.setattr("src.build.data.make_decoder", lambda *_, **__: decoder)
    run_qa(qa_experiment.inference())
    assert decoder.reads == {"test0": 1, "test1": 1, "test2": 1}


def test_several_clips_have_results_of_their_own(qa_experiment: QaExperiment, run_qa: Run) -> None:
    run_qa(qa_experiment.arguments())
    for how in ("max", "lse"):
        run_qa(qa_experiment.inference("--inference_n_clips", "3", "--score_agg_func", how))
        scores = content(qa_experiment.root / f"run/results_test/step_best_3_{how}/scores.json")
        assert scores["protocol"]["num_clips"] == 3
        assert scores["protocol"]["clip_aggregation"] == how


def test_a_run_that_is_killed_continues_bit_for_bit(
    qa_experiment: QaExperiment, run_qa: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = qa_experiment.arguments(output="killed")
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise KilledError

        patch.setattr("src.training.checkpoints.CheckpointWriter.save", die)
        with pytest.raises(KilledError):
            run_qa([*killed, "--min_valid_steps", "6", "--save_steps_ratio", "0.4"])
    run_qa([*killed, "--min_valid_steps", "6", "--save_steps_ratio", "0.4"])
    whole = qa_experiment.arguments(output="whole")
    run_qa([*whole, "--min_valid_steps", "6", "--save_steps_ratio", "0.4"])
    assert_same_run(qa_experiment.root / "whole", qa_experiment.root / "killed")


def test_a_pretrained_checkpoint_starts_the_model(
    qa_experiment: QaExperiment, run_qa: Run, run: Run, tmp_path: Path
) -> None:
    retrieval = TinyExperiment(tmp_path / "retrieval")
    run(retrieval.arguments())
    checkpoint = tmp_path / "retrieval/run/ckpt/model_step_last.pt"
    start: dict[str, Any] = {"random_init": 0, "e2e_weights_path": str(checkpoint)}
    run_qa(qa_experiment.arguments("--learning_rate", "1e-12", **start))
    before = torch.load(checkpoint, weights_only=True)
    after = torch.load(qa_experiment.root / "run/ckpt/model_step_last.pt", weights_only=True)
    word_embeddings = "embeddings.word_embeddings.weight"
    torch.testing.assert_close(
        after[f"text_encoder.{word_embeddings}"], before[f"text_encoder.bert.{word_embeddings}"]
    )
    assert after.keys() - before.keys() >= {"classifier.0.weight", "classifier.2.weight"}


def test_a_classifier_of_another_size_is_refused_or_made_anew(
    qa_experiment: QaExperiment, run_qa: Run, refused_qa: Refuse
) -> None:
    run_qa(qa_experiment.arguments())
    checkpoint = qa_experiment.root / "run/ckpt/model_step_best.pt"
    weights = torch.load(checkpoint, weights_only=True)
    for name in ("classifier.2.weight", "classifier.2.bias"):
        weights[name] = torch.cat([weights[name], weights[name][:923]])
    other = qa_experiment.root / "other.pt"
    torch.save(weights, other)
    start: dict[str, Any] = {"random_init": 0, "e2e_weights_path": str(other)}
    message = refused_qa(qa_experiment.arguments(output="second", **start))
    for part in (str(other), "2423", "1500", "ans2label_path", "new_classifier"):
        assert part in message
    run_qa(qa_experiment.arguments("--new_classifier", "1", output="second", **start))
    flags = ("--e2e_weights_path", str(other))
    assert "2423" in refused_qa(qa_experiment.inference(*flags))


def test_inference_needs_a_classifier(
    qa_experiment: QaExperiment, run_qa: Run, refused_qa: Refuse
) -> None:
    run_qa(qa_experiment.arguments())
    weights = torch.load(
        qa_experiment.root / "run/ckpt/model_step_best.pt", weights_only=True
    )
    headless = {name: w for name, w in weights.items() if not name.startswith("classifier")}
    torch.save(headless, qa_experiment.root / "headless.pt")
    flags = ("--e2e_weights_path", str(qa_experiment.root / "headless.pt"))
    assert "classifier" in refused_qa(qa_experiment.inference(*flags))


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
        ({"ball": 0, "box": 2}, "1"),
        ({"ball": 0, "box": 0}, "0"),
        ({"ball": "0"}, "ball"),
        (["ball"], "object"),
        ({}, "answer"),
    ],
)
def test_labels_that_do_not_number_the_answers_are_refused(
    qa_experiment: QaExperiment, refused_qa: Refuse, labels: Any, complaint: str
) -> None:
    path = qa_experiment.write("odd.json", labels)
    message = refused_qa(qa_experiment.arguments("--ans2label_path", str(path)))
    assert str(path) in message
    assert complaint in message


def test_missing_labels_are_reported_with_the_other_missing_files(
    qa_experiment: QaExperiment, refused_qa: Refuse
) -> None:
    flags = ("--ans2label_path", "/none.json", "--tokenizer_dir", "/none")
    message = refused_qa(qa_experiment.arguments(*flags))
    assert "ans2label_path: there is no file /none.json." in message
    assert "tokenizer_dir: folder /none not found" in message


def test_a_training_set_without_known_answers_is_refused(
    qa_experiment: QaExperiment, refused_qa: Refuse
) -> None:
    rows = [QuestionRow("what is it", "train0", UNKNOWN_ANSWER, "what")]
    write_questions(qa_experiment.root / "txt/train.jsonl", rows)
    message = refused_qa(qa_experiment.arguments())
    assert "none of the 1 answers" in message
    assert "ans2label_path" in message


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
