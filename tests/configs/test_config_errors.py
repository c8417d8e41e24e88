"""Bad input: every message names the place, the key, the value, what is expected and what to do."""

from typing import Any

import pytest

from alpro.configs.downstream import InferenceOptions
from alpro.configs.errors import ConfigError
from alpro.configs.loading import load_config
from alpro.errors import InputError
from alpro.tasks.registry import TASKS
from alpro.tasks.retrieval.config import RetrievalConfig


def test_all_errors_are_reported_together(load: Any) -> None:
    changes = {"num_frm": "eight", "learning_rte": 1, "tokenizer_dir": "drop"}
    errors = load.errors(changes, "--optim", "sgd", "--sed", "1")
    assert len(errors) == 5
    assert errors[0] == "command line: unknown flag --sed. Did you mean --seed?"
    with pytest.raises(InputError) as caught:
        load(changes, "--optim", "sgd", "--sed", "1")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the configuration has 5 errors:"
    assert lines[1].startswith("  1. command line")
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_frm": "8"}, 'num_frm is "8"; expected a whole number, at least 1 and at most 4096.'),
        ({"num_frm": 8.5}, "num_frm is 8.5; expected a whole number, at least 1 and at most 4096."),
        (
            {"num_frm": True},
            "num_frm is true; expected a whole number, at least 1 and at most 4096.",
        ),
        ({"num_frm": 0}, "num_frm is 0; expected a whole number, at least 1 and at most 4096."),
        (
            {"num_frm": None},
            "num_frm is null; expected a whole number, at least 1 and at most 4096.",
        ),
        ({"data_ratio": 0}, "data_ratio is 0; expected a number, above 0 and at most 1."),
        (
            {"learning_rate": float("nan")},
            "learning_rate is NaN; expected a number, above 0 and at most 100.",
        ),
        ({"fp16": "yes"}, 'fp16 is "yes"; expected true or false (or 1 or 0).'),
        ({"fp16": 2}, "fp16 is 2; expected true or false (or 1 or 0)."),
        (
            {"optim": "sgd"},
            'optim is "sgd"; expected one of adamw, adamw_decay_last, adam, adamax.',
        ),
        ({"tokenizer_dir": ""}, 'tokenizer_dir is ""; expected text that is not empty.'),
        ({"betas": [0.9]}, "betas is [0.9]; expected a list of 2 numbers, each at least 0 and"),
        ({"betas": [0.9, 1.0]}, "betas is [0.9, 1.0]; expected a list of 2 numbers"),
        ({"freeze": "temp"}, 'freeze is "temp"; expected a list of texts.'),
        ({"train_datasets": {}}, "train_datasets is {}; expected a list of objects."),
        ({"frobnicate": 1}, "unknown key frobnicate. --help lists all keys."),
        ({"epochs": 3}, "unknown key epochs. Did you mean num_train_epochs?"),
        ({"crop_img_size": "drop"}, "crop_img_size is missing (height and width of the frames"),
        ({"train_datasets": "drop"}, "train_datasets is missing (training sets)."),
        ({"img_input_format": "BGR"}, 'img_input_format = "BGR": videos are decoded to RGB'),
        (
            {"train_n_clips": 3, "frm_sampling_strategy": "uniform"},
            'random_sample_clips = true (default) and frm_sampling_strategy = "uniform": all clips',
        ),
        (
            {"sample_rate": 2},
            'frm_sampling_strategy = "rand" (default) and sample_rate = 2: the rate is that of',
        ),
        ({"frm_sampling_strategy": "interval"}, "sample_rate = 0 (default): the rate is that of"),
        (
            {"inference_n_clips": 0},
            "inference_n_clips is 0; expected a whole number, at least 1 and at most 1000.",
        ),
        ({"max_n_example_per_group": 2}, "max_n_example_per_group = 2: the losses of retrieval"),
        ({"augmentation": "crop"}, 'augmentation is "crop"; expected one of none, randaugment.'),
        ({"decay": "multi_step"}, 'decay = "multi_step" and step_decay_epochs = null (default)'),
        ({"grad_norm": 0}, "grad_norm = 0.0: gradients cannot be clipped"),
        ({"use_itc": 0, "use_itm": 0}, "use_itc = false and use_itm = false: no loss is left"),
        ({"use_itc": 0, "itm_start_ratio": 0.5}, "itm_start_ratio = 0.5 and use_itc = false"),
        ({"fp16": 1, "precision": "bf16"}, "fp16 is 1, but precision is bf16."),
        ({"max_txt_len": 600}, "max_txt_len = 600 and max_position_embeddings = 512"),
    ],
)
def test_a_value_in_the_file(load: Any, changes: dict[str, Any], expected: str) -> None:
    (error,) = load.errors(changes)
    assert "experiment.json: " in error
    assert expected in error


def test_headtail_needs_an_even_number_of_frames(load: Any) -> None:
    (error,) = load.errors({"frm_sampling_strategy": "headtail"}, "--num_frm", "7")
    assert 'frm_sampling_strategy = "headtail" and --num_frm = 7 (command line)' in error
    assert error.endswith("Make num_frm even.")
    assert load({"frm_sampling_strategy": "headtail"}, "--num_frm", "8").config.num_frm == 8


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"name": "a", "txt": "t"}, "train_datasets.0.img is missing (folder, LMDB or tar"),
        ({"name": "a", "txt": "t", "img": 3}, "train_datasets.0.img is 3; expected text"),
        ({"name": "a", "txt": "t", "img": "v", "images": 1}, "unknown key train_datasets.0.images"),
        ({"name": "a", "txt": {"a": "t"}, "img": "v"}, 'train_datasets.0.txt = {"a": "t"}'),
        ({"name": "a", "img": "v"}, "train_datasets.0.txt = null"),
    ],
)
def test_an_entry_of_a_list(load: Any, entry: dict[str, Any], expected: str) -> None:
    (error,) = load.errors({"train_datasets": [entry]})
    assert expected in error


def test_test_sets_may_not_share_a_results_folder(load: Any) -> None:
    sets = [
        {"name": name, "txt": txt, "img": "videos"}
        for name, txt in (("a", "a/test.jsonl"), ("b", "b/other.csv"), ("c", "c/test.csv"))
    ]
    (error,) = load.errors({"test_datasets": sets})
    assert 'test_datasets.0.txt = "a/test.jsonl" and test_datasets.2.txt = "c/test.csv"' in error
    assert "results_<name of the annotation file>" in error
    assert "Give one file another name" in error
    assert len(load.errors({"test_datasets": [sets[0]] * 3})) == 3
    assert len(load({"test_datasets": sets[:2]}).config.test_datasets) == 2


@pytest.mark.parametrize(
    ("in_file", "flags", "expected"),
    [
        ({"num_workers": "many"}, [], 'num_workers is "many"; expected a whole number'),
        (
            {"num_workers": -1},
            [],
            "num_workers is -1; expected a whole number, at least 0 and at most 1024.",
        ),
        ({}, ["--num_workers", "many"], '--num_workers is "many"; expected a whole number'),
        (
            {},
            ["--num_workers", "-1"],
            "--num_workers is -1; expected a whole number, at least 0 and at most 1024.",
        ),
        ({}, ["--num_workers"], "--num_workers has no value"),
        ({}, ["--num_workers", "1", "--n_workers", "-1"], "--n_workers is -1"),
    ],
)
def test_an_alias_is_called_as_the_user_wrote_it(
    load: Any, in_file: dict[str, Any], flags: list[str], expected: str
) -> None:
    (error,) = load.errors(in_file, *flags)
    assert f": {expected}" in error


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ["--num_frm", "eight"],
            '--num_frm is "eight"; expected a whole number, at least 1 and at most 4096.',
        ),
        (
            ["--num_frm", "0"],
            "--num_frm is 0; expected a whole number, at least 1 and at most 4096.",
        ),
        (
            ["--num_frm"],
            "--num_frm has no value; expected a whole number, at least 1 and at most 4096.",
        ),
        (["--seed", "1", "2"], '--seed is ["1", "2"]; expected a whole number'),
        (["--debug"], "--debug has no value; expected true or false (or 1 or 0). Write --debug 1."),
        (["--debug", "yes"], '--debug is "yes"; expected true or false'),
        (["--betas", "0.9"], "--betas is [0.9]; expected a list of 2 numbers"),
        (["--betas", "a", "b"], '--betas is ["a", "b"]; expected a list of 2 numbers'),
        (["--learning", "1e-3"], "unknown flag --learning. Did you mean --learning_rate?"),
        (["--train_datasets", "x"], "--train_datasets cannot be given whole. Give its parts:"),
        (["--train_datasets.0.imgs", "x"], "Did you mean --train_datasets.0.img?"),
        (
            ["--train_datasets.0.frames", "x"],
            "unknown flag --train_datasets.0.frames. The parts of --train_datasets.0: name, txt,",
        ),
        (["--train_dataset.0.img", "x"], "Did you mean --train_datasets.0.img?"),
        (["--train_datasets.2.img", "x"], "train_datasets has 1 entries, counted from 0."),
        (["--seed.0", "1"], "seed has no parts: write --seed."),
        (["--print_config", "1"], "--print_config takes no value."),
    ],
)
def test_a_flag(load: Any, flags: list[str], expected: str) -> None:
    (error,) = load.errors({}, *flags)
    assert error.startswith("command line: ")
    assert expected in error


def test_a_word_without_flag() -> None:
    with pytest.raises(ConfigError, match='"config.json" belongs to no flag'):
        load_config(RetrievalConfig, ["config.json"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": 1,\n "b": 2,\n}', "broken.json:3:1: not JSON"),
        ('{"seed": 1, "seed": 2}', 'broken.json: key "seed" occurs more than once.'),
        ("[1]", "broken.json: must hold one JSON object: {...}."),
        ("", "broken.json:1:1: not JSON"),
    ],
)
def test_a_broken_file_is_the_only_error(write: Any, content: str, expected: str) -> None:
    path = write("broken.json", content)
    with pytest.raises(ConfigError) as caught:
        load_config(RetrievalConfig, ["--config", str(path)])
    (error,) = caught.value.errors
    assert expected in error


def test_a_missing_file_is_the_only_error() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(RetrievalConfig, ["--config", "nowhere.json"])
    (error,) = caught.value.errors
    assert error.startswith("nowhere.json: there is no such file (named by --config). Paths are")


_NO_CONFIG = "command line: --config is missing. Add --config FILE; config_release/ has one for"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", _NO_CONFIG),
        ("--output_dir out --num_frm 0 --crop_img_size 64", _NO_CONFIG),
        ("--output_dir out --do_inference 1 --e2e_weights_path best.pt", _NO_CONFIG),
        ("--output_dir out --do_inference 1", "out/log/args.json: there is no such file, so"),
        ("--conifg ret.json", "command line: unknown flag --conifg. Did you mean --config?"),
        ("--config --output_dir out", "command line: --config takes one file."),
        (
            "config_release/demo_ret.json --output_dir out",
            'command line: "config_release/demo_ret.json" belongs to no flag. Values follow their '
            "flag: --config config_release/demo_ret.json.",
        ),
    ],
)
def test_a_forgotten_config_is_the_only_error(flags: str, expected: str) -> None:
    for config_class in TASKS.values():
        if "do_inference" in flags and not issubclass(config_class, InferenceOptions):
            continue
        with pytest.raises(ConfigError) as caught:
            load_config(config_class, flags.split())
        (error,) = caught.value.errors
        assert error.startswith(expected)
        assert str(caught.value) == error


def test_flags_may_replace_a_config() -> None:
    flags = {
        "output_dir": "out", "crop_img_size": "64", "img_pixel_mean": "0 0 0",
        "img_pixel_std": "1 1 1", "tokenizer_dir": "ext/demo-tokenizer",
    }  # fmt: skip
    words = [word for key, value in flags.items() for word in [f"--{key}", *value.split()]]
    with pytest.raises(ConfigError) as caught:
        load_config(RetrievalConfig, words)
    missing = [error.split()[2] for error in caught.value.errors]
    assert missing == ["train_datasets", "val_datasets", "model_config", "visual_model_cfg"]


def test_all_defaults_are_shown_without_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        load_config(RetrievalConfig, ["--print_config"])
    assert end.value.code == 0
    assert "crop_img_size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("video", "text", "expected"),
    [
        ({"patch_size": 13}, {}, "crop_img_size = 224 and patch_size = 13 ("),
        ({"num_heads": 7}, {}, "video.json: embed_dim = 768 and num_heads = 7: every"),
        ({"embed_dim": 120}, {}, "video.json: embed_dim = 120 and hidden_size = 768 ("),
        ({}, {"fusion_layer": 12}, "text.json: fusion_layer = 12 and num_hidden_layers = 12"),
        ({}, {"num_attention_heads": 5}, "hidden_size = 768 and num_attention_heads = 5"),
        ({}, {"pad_token_id": 30522}, "pad_token_id = 30522 and vocab_size = 30522"),
        ({}, {"itc_token_type": "mean"}, 'itc_token_type is "mean"; expected one of cls.'),
        ({"cls": "ViT"}, {}, 'video.json: cls is "ViT"; expected one of TimeSformer.'),
        ({"embeddim": 1}, {}, "video.json: unknown key embeddim. Did you mean embed_dim?"),
        ({"drop_rate": 1}, {}, "drop_rate is 1; expected a number, at least 0 and below 1."),
    ],
)
def test_a_value_in_a_model_file(
    load: Any, write: Any, video: dict[str, Any], text: dict[str, Any], expected: str
) -> None:
    write("video.json", video)
    write("text.json", text)
    (error,) = load.errors()
    assert expected in error


def test_a_missing_model_file_names_the_key_and_file_that_ask_for_it(load: Any) -> None:
    (error,) = load.errors({"model_config": "nowhere.json"})
    assert error.startswith("nowhere.json: there is no such file (named by model_config, ")


@pytest.mark.parametrize("flag", [["--local-rank=0"], ["--local_rank", "0"], ["--local-rank", "1"]])
def test_flags_of_launchers_before_torchrun_are_ignored(
    load: Any, flag: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert load({}, *flag).config == load({}).config
    monkeypatch.setenv("LOCAL_RANK", "")
    (error,) = load.errors({}, *flag)
    assert error.startswith(f"command line: {flag[0].partition('=')[0]} is a launcher's, which has")
    assert "Start the run with torchrun --nproc_per_node N, or leave the flag out." in error
