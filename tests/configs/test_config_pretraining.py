"""The keys of both stages of pretraining, and what a set of theirs is."""

import json
from typing import Any, get_args

import pytest

from alpro.configs.fields import fields_of
from alpro.configs.loading import load_config
from alpro.errors import InputError
from alpro.families.alpro import pretraining_model as prompter
from alpro.file_kinds import Media
from alpro.tasks.pretraining.config import PretrainConfig, PrompterConfig
from alpro.tasks.pretraining.options import PretrainingDataset, media_of, pretraining_file
from alpro.tasks.retrieval.config import RetrievalConfig

BOTH = ("load_prompter", "load_pretraining")
IMAGES = {"name": "pictures", "ann": "pictures.json"}


@pytest.fixture(params=BOTH)
def load_either(request: pytest.FixtureRequest) -> Any:
    """A loader of either stage."""
    return request.getfixturevalue(request.param)


def test_pretraining_defaults(load_either: Any) -> None:
    resolved = load_either()
    config = resolved.config
    assert resolved.warnings == []
    assert (config.resize_size, config.repeat_images, config.num_entities) == (288, True, 1000)
    assert (config.augmentation, config.mask_same_video) == ("randaugment", False)
    assert (config.best_metric, config.model_type) == ("loss", "pretrain")
    assert config.grad_cache_size == 0


def test_the_original_defaults_enable_no_loss(load_pretraining: Any) -> None:
    config = load_pretraining().config
    used = (config.use_itc, config.use_itm, config.use_mlm, config.use_mpm)
    assert used == (True, False, True, False)
    assert (config.itm_start_ratio, config.mlm_probability) == (0.0, 0.15)
    assert (config.teacher_weights_path, config.entity_file_path) == (None, None)
    assert (config.entity_threshold, config.itm_negatives) == (0.2, "local")


def test_the_prompter_needs_no_teacher(load_prompter: Any) -> None:
    config = load_prompter().config
    assert (config.use_itc, config.use_itm, config.use_mlm, config.use_mpm) == (
        *(True, False, False, False),
    )
    changes = {"teacher_weights_path": "prompter.pt", "entity_file_path": "unigrams.txt"}
    (warning,) = load_prompter(changes).warnings
    assert warning.startswith("keys without effect: entity_file_path, teacher_weights_path (")


@pytest.mark.parametrize("config_class", [PrompterConfig, PretrainConfig])
def test_keys_that_only_tasks_have(config_class: Any) -> None:
    of_tasks = fields_of(RetrievalConfig).keys() - fields_of(config_class).keys()
    expected = {"do_inference", "inference_txt_db", "test_datasets", "frame_order"}
    several = {"random_sample_clips", "max_n_example_per_group", "retrieval_top_k"}
    assert expected | several <= of_tasks


@pytest.mark.parametrize("config_class", [PrompterConfig, PretrainConfig])
def test_pretraining_help(config_class: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        load_config(config_class, ["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python {config_class.SCRIPT} --config FILE")
    for name in fields_of(config_class):
        assert f"  --{name}" in text
    topics = ("Run", "Data", "Video and text input", "Validation and saving")
    places = [text.index(f"\n{topic}:\n") for topic in topics]
    own = [
        text.index(f"\n{topic}:\n") for topic in ("Prompter and pretraining", config_class.TOPIC)
    ]
    assert [*places, *own] == sorted([*places, *own])
    assert text.index("--num_frm") < text.index("--augmentation") < text.index("--max_txt_len")
    assert text.count("[none | randaugment; default\n") + text.count("default randaugment]") == 1
    keys = "name,ann,txt,img,media,vid_cap_path,vid_txt,vis_format,weight"
    assert f"--train_datasets.I.{{{keys}}}" in text
    assert "\nInference:" not in text
    assert max(map(len, text.splitlines()[1:])) <= 100


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"ann": "a.json"}, ("a.json", "image")),
        ({"ann": "a.JSON"}, ("a.JSON", "image")),
        ({"ann": "a.pkl"}, ("a.pkl", "video")),
        ({"ann": "a.jsonl"}, ("a.jsonl", "video")),
        ({"txt": "a.json"}, ("a.json", "image")),
        ({"ann": "a.csv", "txt": "a.csv"}, ("a.csv", "video")),
        ({"ann": "a.json", "media": "video"}, ("a.json", "video")),
        ({"ann": "a.jsonl", "media": "image"}, ("a.jsonl", "image")),
    ],
)
def test_media_of_a_set(entry: dict[str, Any], expected: tuple[str, str]) -> None:
    dataset = PretrainingDataset(name="a", **entry)
    assert (pretraining_file(dataset), media_of(dataset)) == expected


def test_several_sets(load_either: Any) -> None:
    videos = load_either.experiment["train_datasets"][0]
    changes = {"train_datasets": [{**videos, "weight": 3}, {**IMAGES, "img": "pictures"}]}
    resolved = load_either(changes, "--train_datasets.1.weight", "0.5")
    assert resolved.config.train_datasets == [
        PretrainingDataset(name="pets", ann="pets/train.csv", img="pets/videos", weight=3.0),
        PretrainingDataset(name="pictures", ann="pictures.json", img="pictures", weight=0.5),
    ]
    assert resolved.sources["train_datasets.1.weight"] == "flag"
    assert resolved.sources["train_datasets.1.media"] == "default"
    assert load_either({"train_datasets": [IMAGES]}).config.train_datasets[0].img is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"img": "v"}, "train_datasets.0.ann = null and train_datasets.0.txt = null: pretraining"),
        ({"ann": "a.csv", "txt": "b.csv", "img": "v"}, "Set txt to null, or make two sets."),
        ({"ann": "a.csv"}, 'train_datasets.0.img = null and train_datasets.0.ann = "a.csv"'),
        ({"txt": "a.csv"}, "Give img the folder; if these are images, set media to image."),
        ({"ann": "a.json", "media": "video"}, 'and train_datasets.0.media = "video": this is a'),
        (
            {"ann": "a.csv", "img": "v", "weight": 0},
            "weight is 0; expected a number, above 0 and at most 1000000000.",
        ),
        ({"ann": "a.csv", "img": "v", "media": "gif"}, "expected one of auto, video, image."),
        ({"ann": {"a": "a.csv"}, "img": "v"}, "train_datasets.0.ann is {"),
        ({"txt": {"a": "a.csv"}, "img": "v"}, "expected text that is not empty or null."),
        ({"ann": "a.csv", "img": "v", "video": "v"}, "unknown key train_datasets.0.video."),
    ],
)
def test_an_entry_of_a_list(load_either: Any, entry: dict[str, Any], expected: str) -> None:
    (error,) = load_either.errors({"train_datasets": [{"name": "a", **entry}]})
    assert "experiment.json: " in error
    assert expected in error


def test_every_set_is_checked(load_either: Any) -> None:
    bare = {"name": "a"}
    errors = load_either.errors({"train_datasets": [IMAGES, bare], "val_datasets": [bare]})
    assert ["train_datasets.1.ann" in error for error in errors] == [True, False]
    assert ["val_datasets.0.ann" in error for error in errors] == [False, True]
    (error,) = load_either.errors({"val_datasets": [{**IMAGES, "weight": 2}]})
    assert "val_datasets.0.weight = 2.0: every pair of a validation set is read once." in error


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_datasets": "drop"}, "train_datasets is missing (training sets)."),
        ({"val_datasets": []}, "val_datasets is missing (validation sets, given in the same way)."),
        ({"resize_size": 200}, "crop_img_size = 224 and resize_size = 200: frames of resize_size"),
        ({"crop_img_size": 320}, "crop_img_size = 320 and resize_size = 288 (default)"),
        (
            {"num_entities": 0},
            "num_entities is 0; expected a whole number, at least 1 and at most 1000000.",
        ),
        ({"model_type": "vqa"}, 'model_type is "vqa"; expected one of pretrain.'),
        ({"repeat_images": 4}, "repeat_images is 4; expected true or false (or 1 or 0)."),
        ({"train_n_clips": 3}, "train_n_clips = 3: pretraining reads one clip per video. Set it"),
        ({"best_metric": "acc"}, 'best_metric is "acc"; expected one of loss, '),
        ({"test_datasets": []}, "unknown key test_datasets."),
        ({"frame_order": "reversed"}, "unknown key frame_order."),
        ({"do_inference": 1}, "unknown key do_inference."),
    ],
)
def test_a_value_in_the_file(load_either: Any, changes: dict[str, Any], expected: str) -> None:
    (error,) = load_either.errors(changes)
    assert "experiment.json: " in error
    assert expected in error


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"use_itc": 0}, "use_itc = false: the prompter learns from the contrastive loss alone."),
        ({"use_itm": 1}, "use_itm = true: the prompter learns from the contrastive loss alone."),
        ({"use_mlm": 1}, "Set it to 0; src/pretrain/run_pretrain_sparse.py trains with this loss."),
        ({"use_mpm": 1}, "use_mpm = true: the prompter learns"),
        ({"best_metric": "itm_acc"}, "expected one of loss, i2t_acc, t2i_acc."),
        ({"mlm_probability": 0.3}, "unknown key mlm_probability."),
    ],
)
def test_the_prompter_learns_from_one_loss(
    load_prompter: Any, changes: dict[str, Any], expected: str
) -> None:
    (error,) = load_prompter.errors(changes)
    assert expected in error


PEM = {"use_mpm": 1, "entity_file_path": "unigrams.txt", "teacher_weights_path": "prompter.pt"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"use_itc": 0, "use_mlm": 0}, "use_mpm = false (default): no loss is left to train with."),
        ({"use_itc": 0, "use_mlm": 0, "use_itm": 1, "itm_start_ratio": 0.5}, "there would be no"),
        ({**PEM, "entity_file_path": None}, "use_mpm = true and entity_file_path = null: the"),
        ({**PEM, "entity_file_path": "drop"}, "alpro extract-entities makes it"),
        (
            {**PEM, "teacher_weights_path": ""},
            "the entity loss needs a trained prompter as teacher",
        ),
        (
            {**PEM, "entity_file_path": None, "e2e_weights_path": "model.pt"},
            "the entity loss classifies into the entities of a list",
        ),
        ({"mlm_probability": 0}, "mlm_probability is 0; expected a number, above 0 and at most 1."),
        ({"entity_threshold": 1.1}, "expected a number, at least 0 and at most 1."),
        ({"best_metric": "mpm_acc"}, 'best_metric = "mpm_acc" and use_mpm = false (default): a'),
        ({"best_metric": "itm_loss"}, "Set use_itm to 1 or best_metric to loss."),
        ({"best_metric": "t2i_acc", "use_itc": 0}, 'best_metric = "t2i_acc" and use_itc = false'),
    ],
)
def test_losses_need_their_files_and_metrics(
    load_pretraining: Any, changes: dict[str, Any], expected: str
) -> None:
    (error,) = load_pretraining.errors(changes)
    assert expected in error


@pytest.mark.parametrize("loss", ["use_itc", "use_itm", "use_mlm", "use_mpm"])
def test_one_loss_is_enough(load_pretraining: Any, loss: str) -> None:
    config = load_pretraining({"use_itc": 0, "use_mlm": 0, **PEM, "use_mpm": 0, loss: 1}).config
    losses = ("use_itc", "use_itm", "use_mlm", "use_mpm")
    assert [name for name in losses if getattr(config, name)] == [loss]


def test_a_pretrained_model_has_its_own_prompter(load_pretraining: Any) -> None:
    changes = {**PEM, "teacher_weights_path": None, "e2e_weights_path": "model.pt"}
    assert load_pretraining(changes).config.use_mpm
    assert load_pretraining({**changes, "teacher_weights_path": "prompter.pt"}).config.use_mpm


def test_the_original_keys_without_effect_give_one_warning(load_either: Any) -> None:
    ignored = {"dropout": 0.1, "fps": 0.5, "random_sample_clips": 1, "max_n_example_per_group": 1}
    (warning,) = load_either({**ignored, "num_train_steps": 5}).warnings
    assert all(key in warning for key in (*ignored, "num_train_steps"))


def test_the_stored_config_loads_again_to_the_same_config(load_either: Any) -> None:
    resolved = load_either({"train_datasets": [IMAGES], "repeat_images": 0})
    load_either.experiment = json.loads(json.dumps(resolved.to_json()))
    assert load_either().config == resolved.config


def test_all_media_have_prompts() -> None:
    assert set(get_args(Media)) == prompter.TEMPLATES.keys()


@pytest.mark.parametrize("config_class", [PrompterConfig, PretrainConfig])
def test_a_task_does_not_infer_with_a_run_of_pretraining(
    load: Any, write: Any, pretraining: dict[str, Any], config_class: Any
) -> None:
    path = write("run/log/args.json", {**pretraining, "script": config_class.SCRIPT})
    flags = ("--do_inference", "1", "--inference_txt_db", "t.jsonl", "--inference_img_db", "v")
    run = path.parents[1]
    with pytest.raises(InputError) as caught:
        load({"output_dir": str(run)}, *flags)
    assert str(caught.value) == (
        f"{run} is a run of {config_class.SCRIPT}, and results have a folder of their own: give "
        f"another --output_dir, and --e2e_weights_path {run}/ckpt/model_step_best.pt"
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"img": "drop"}, "train_datasets.0.img is missing (folder, LMDB or tar"),
        ({"img": None}, "train_datasets.0.img is null; expected text that is not empty."),
        ({"weight": 2}, "unknown key train_datasets.0.weight."),
        ({"media": "video"}, "unknown key train_datasets.0.media."),
    ],
)
def test_sets_of_a_task_are_of_videos(load: Any, entry: dict[str, Any], expected: str) -> None:
    values = {"name": "pets", "txt": "pets.csv", "img": "pets", **entry}
    dataset = {key: value for key, value in values.items() if value != "drop"}
    (error,) = load.errors({"train_datasets": [dataset]})
    assert expected in error
