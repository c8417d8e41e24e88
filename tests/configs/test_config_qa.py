"""The keys of question answering, and where its annotations are."""

import json
from typing import Any

import pytest

from alpro.configs.downstream import DownstreamDataset, annotation_file
from alpro.configs.fields import fields_of
from alpro.configs.shared_options import VideoOptions
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig

MAP = {"pets_qa": "pets/train.jsonl", "other_qa": "pets/other.jsonl"}


def sets(*annotations: Any) -> list[dict[str, Any]]:
    return [{"name": "pets", "txt": txt, "img": "pets/videos"} for txt in annotations]


def test_question_answering_defaults(load_qa: Any) -> None:
    resolved = load_qa()
    config = resolved.config
    assert resolved.warnings == []
    assert (config.task, config.best_metric) == ("video_qa", "overall_acc")
    assert (config.augmentation, config.new_classifier) == ("randaugment", False)
    assert (config.max_n_example_per_group, config.train_n_clips) == (1, 1)
    assert resolved.sources["augmentation"] == "default"
    assert load_qa({"augmentation": "none"}).config.augmentation == "none"


def test_another_default_leaves_the_rest_of_a_key_as_it_is() -> None:
    shared, own = fields_of(VideoOptions)["augmentation"], fields_of(QaConfig)["augmentation"]
    assert (shared.default, own.default) == ("none", "randaugment")
    assert (shared.rule, shared.type, shared.topic) == (own.rule, own.type, own.topic)
    assert fields_of(RetrievalConfig)["augmentation"].default == "none"


def test_several_questions_may_share_a_video(load_qa: Any) -> None:
    assert load_qa({"max_n_example_per_group": 4}).config.max_n_example_per_group == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ans2label_path": "drop"}, "ans2label_path is missing (JSON map of answers to labels"),
        ({"ans2label_path": ""}, 'ans2label_path is ""; expected text that is not empty.'),
        ({"task": ""}, 'task is ""; expected text that is not empty.'),
        ({"new_classifier": 2}, "new_classifier is 2; expected true or false (or 1 or 0)."),
        ({"best_metric": "text2video_r1"}, "expected one of overall_acc, top5_acc, loss."),
        ({"train_n_clips": 0}, "train_n_clips is 0; expected a whole number, at least 1"),
        ({"img_input_format": "BGR"}, 'img_input_format = "BGR": videos are decoded to RGB'),
        ({"use_itm": 1}, "unknown key use_itm."),
        ({"ans2label": "x.json"}, "unknown key ans2label. Did you mean ans2label_path?"),
    ],
)
def test_a_value_in_the_file(load_qa: Any, changes: dict[str, Any], expected: str) -> None:
    (error,) = load_qa.errors(changes)
    assert "experiment.json: " in error
    assert expected in error


def test_annotations_are_a_path_or_the_entry_of_the_task(load_qa: Any) -> None:
    config = load_qa({"train_datasets": sets("a.csv", MAP), "task": "pets_qa"}).config
    paths = [annotation_file(part, config.task) for part in config.train_datasets]
    assert paths == ["a.csv", "pets/train.jsonl"]
    plain = DownstreamDataset(name="pets", txt="b.jsonl", img="videos")
    assert annotation_file(plain, None) == "b.jsonl"


@pytest.mark.parametrize(
    ("txt", "expected"),
    [
        (MAP, "the map has no entry msvd_qa, only pets_qa, other_qa. Give txt the path"),
        (
            {f"task{number}": "a.jsonl" for number in range(6)},
            "no entry msvd_qa, only task0, task1, task2, task3, task4, ...",
        ),
        ({}, "the map is empty."),
        (None, "question answering reads its questions from one file per set."),
    ],
)
def test_a_set_without_questions_for_the_task(load_qa: Any, txt: Any, expected: str) -> None:
    (error,) = load_qa.errors({"val_datasets": sets(txt)}, "--task", "msvd_qa")
    assert "experiment.json: val_datasets.0.txt = " in error
    assert '--task = "msvd_qa" (command line): ' in error
    assert expected in error
    assert error.endswith("a map of tasks to paths with an entry for this task.")


def test_every_set_is_checked(load_qa: Any) -> None:
    changes = {"train_datasets": sets("a.jsonl", MAP), "test_datasets": sets({"x": "b.jsonl"})}
    errors = load_qa.errors(changes)
    assert ["train_datasets.1.txt" in error for error in errors] == [True, False]
    assert ["test_datasets.0.txt" in error for error in errors] == [False, True]
    assert 'task = "video_qa" (default)' in errors[0]


def test_test_sets_may_not_share_a_results_folder(load_qa: Any) -> None:
    named_alike = sets("a/train.csv", "a/test.csv", MAP)
    (error,) = load_qa.errors({"test_datasets": named_alike, "task": "pets_qa"})
    assert 'test_datasets.0.txt = "a/train.csv" and test_datasets.2.txt = {"pets_qa"' in error
    assert "results_<name of the annotation file>" in error
    config = load_qa({"test_datasets": named_alike, "task": "other_qa"}).config
    assert len(config.test_datasets) == 3


def test_inference_is_not_refused_over_sets_that_it_does_not_read(load_qa: Any, write: Any) -> None:
    stored = {
        **load_qa.experiment,
        "train_datasets": sets(MAP),
        "test_datasets": sets("a/t", "b/t"),
    }
    path = write("run/log/args.json", stored)
    write("run/log/model_config.json", {})
    flags = ("--do_inference", "1", "--inference_txt_db", "t.jsonl", "--inference_img_db", "v")
    assert load_qa({"output_dir": str(path.parents[1])}, *flags).config.do_inference
    assert len(load_qa.errors(stored)) == 2


def test_the_entry_of_a_task_is_a_flag(load_qa: Any) -> None:
    flags = ("--task", "new_qa", "--train_datasets.0.txt.new_qa", "new.jsonl")
    config = load_qa({"train_datasets": sets(MAP)}, *flags).config
    assert config.train_datasets[0].txt == {**MAP, "new_qa": "new.jsonl"}


def test_the_original_keys_without_effect_give_one_warning(load_qa: Any) -> None:
    ignored = {"classifier": "mlp", "cls_hidden_scale": 2, "loss_type": "ce", "resize_size": 256}
    (warning,) = load_qa({**ignored, "model_type": "pretrain"}, "--num_labels", "9").warnings
    for key in (*ignored, "model_type", "num_labels"):
        assert key in warning


def test_the_stored_config_loads_again_to_the_same_config(load_qa: Any) -> None:
    resolved = load_qa({"train_datasets": sets(MAP), "task": "pets_qa"})
    stored = json.loads(json.dumps(resolved.to_json()))
    load_qa.experiment = {**stored, "num_labels": 1500, "loss_type": "ce"}
    assert load_qa().config == resolved.config


def test_answers_and_task_are_the_trained_runs_own(load_qa: Any, write: Any) -> None:
    stored = {**load_qa.experiment, "task": "msvd_qa", "ans2label_path": "run.json"}
    path = write("run/log/args.json", {**stored, "num_labels": 2423, "classifier": "mlp"})
    write("run/log/model_config.json", {})
    flags = ("--do_inference", "1", "--inference_txt_db", "t.jsonl", "--inference_img_db", "v")
    changes = {"output_dir": str(path.parents[1]), "task": "pets_qa"}
    resolved = load_qa(changes, *flags)
    assert (resolved.config.task, resolved.config.ans2label_path) == ("msvd_qa", "run.json")
    assert resolved.warnings == []
    other = load_qa(changes, *flags, "--ans2label_path", "mine.json")
    assert other.config.ans2label_path == "mine.json"
