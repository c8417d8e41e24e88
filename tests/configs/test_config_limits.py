"""Values that no machine could serve: every key has limits, and they are checked first."""

import json
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alpro.configs import experiment as checks
from alpro.configs.command_line import parse_flags
from alpro.configs.downstream import DownstreamDataset
from alpro.configs.errors import ConfigError, ConfigIssue
from alpro.configs.family import with_family
from alpro.configs.fields import Option, fields_of
from alpro.configs.loading import load_config
from alpro.configs.validation import read_values
from alpro.families.alpro.config import CONFIG
from alpro.tasks.pretraining.options import PretrainingDataset
from alpro.tasks.registry import TASKS
from alpro.tasks.retrieval.config import RetrievalConfig

CLASSES: list[Any] = [
    *(with_family(config_class, "alpro") for config_class in TASKS.values()),
    *CONFIG.architecture.values(),
    *(DownstreamDataset, PretrainingDataset),
]
ODD_NUMBERS = (2**31, 2**63, 10**400, -(2**63), -(10**400), 1e308, 1e-320, math.inf, math.nan)
PATH_ENDINGS = ("_path", "_dir", "_db", "_cfg", "model_config")
LONG = "x" * 5000


def numbers_of(config_class: Any) -> list[Option]:
    """Options that take numbers, alone or in lists."""
    return [option for option in fields_of(config_class).values() if takes_number(option.type)]


def takes_number(expected: Any) -> bool:
    return expected in (int, float) or any(map(takes_number, typing.get_args(expected)))


def every_number() -> Iterator[tuple[Any, Option]]:
    for config_class in CLASSES:
        yield from ((config_class, option) for option in numbers_of(config_class))


def problems_of(config_class: Any, values: dict[str, Any]) -> list[ConfigIssue]:
    problems: list[ConfigIssue] = []
    read_values(config_class, values, locate=lambda key: ("file", key), problems=problems)
    return problems


def test_every_number_has_both_limits() -> None:
    unlimited = [
        f"{config_class.__name__}.{option.name}"
        for config_class, option in every_number()
        if {option.rule.minimum, option.rule.above} == {None}
        or {option.rule.maximum, option.rule.below} == {None}
    ]
    assert unlimited == []


def test_odd_numbers_in_files_are_legal_or_refused_by_key() -> None:
    for config_class, option in every_number():
        for number in ODD_NUMBERS:
            arguments = typing.get_args(option.type)
            length = len(arguments) if typing.get_origin(option.type) is tuple else 1
            is_list = typing.get_origin(option.type) is tuple or list[int] in arguments
            value = [number] * length if is_list else number
            problems = problems_of(config_class, {option.name: value})
            of_key = [problem for problem in problems if option.name in problem.text]
            assert of_key or number == 2**31 or (number == 1e-320 and option.rule.above is None), (
                config_class,
                option.name,
                number,
            )


def test_odd_numbers_in_flags_are_legal_or_refused_by_key() -> None:
    texts = [str(number) for number in ODD_NUMBERS]
    for config_class in TASKS.values():
        for option in numbers_of(config_class):
            for text in [*texts, "9" * 5000]:
                count = len(typing.get_args(option.type)) or 1
                flags = parse_flags(config_class, [f"--{option.name}", *[text] * count])
                problems = flags.problems or problems_of(config_class, flags.values)
                named = [problem for problem in problems if option.name in problem.text]
                assert named or text in ("2147483648", "1e-320"), (option.name, text)


def test_a_config_of_odd_numbers_is_refused_at_once(load: Any) -> None:
    numbers = numbers_of(RetrievalConfig)
    errors = load.errors({option.name: 2**65 for option in numbers})
    for option in numbers:
        assert any(f": {option.name} is " in error for error in errors)


def test_a_number_of_400_digits_is_refused_with_its_line(write: Any) -> None:
    path = write("long.json", '{\n "seed": 1,\n "num_frm": -' + "9" * 400 + "}")
    with pytest.raises(ConfigError) as caught:
        load_config(RetrievalConfig, ["--config", str(path)])
    (error,) = caught.value.errors
    assert "long.json:3:13: a number of 401 digits; at most 40 are read, at" in error
    assert "num_frm" in error


@pytest.mark.parametrize("key", ["n_workers", "num_threads"])
def test_more_processes_than_cores_can_serve_are_refused(
    load: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(checks, "_num_cores", lambda: 2)
    assert getattr(load({key: 64}).config, key) == 64
    (error,) = load.errors({key: 65})
    assert f"{key} = 65: so many cannot work at once on 2 cores" in error
    monkeypatch.setattr(checks, "_num_cores", lambda: 32)
    assert getattr(load({key: 512}).config, key) == 512
    assert f"{key} = 513" in load.errors({key: 513})[0]


def test_an_mlp_without_width_is_refused(load: Any, write: Any) -> None:
    write("video.json", {"embed_dim": 768, "mlp_ratio": 0.001})
    (error,) = load.errors()
    assert "mlp_ratio = 0.001 and embed_dim = 768" in error


def test_every_path_is_declared_as_one() -> None:
    for config_class in CLASSES:
        for name, option in fields_of(config_class).items():
            is_path = name in ("txt", "ann", "img") or name.endswith(PATH_ENDINGS)
            assert option.rule.path == is_path, (config_class, name)


def test_a_tilde_is_the_home_folder(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    dataset = {"name": "~", "txt": "~/train.jsonl", "img": "a/~/b"}
    changes = {"visual_model_cfg": "~/video.json", "train_datasets": [dataset]}
    config = load(changes, "--output_dir", "~/runs", "--val_datasets.0.txt=~/val.jsonl").config
    assert config.output_dir == f"{tmp_path}/runs"
    assert config.visual_model_cfg == f"{tmp_path}/video.json"
    (train,) = config.train_datasets
    assert (train.name, train.txt, train.img) == ("~", f"{tmp_path}/train.jsonl", "a/~/b")
    assert config.val_datasets[0].txt == f"{tmp_path}/val.jsonl"
    load.path()
    written = load_config(RetrievalConfig, ["--config=~/experiment.json"]).config
    assert written.output_dir == "runs/pets"


def test_a_tilde_in_a_map_of_paths_is_the_home_folder(load_qa: Any) -> None:
    maps = {"name": "a", "img": "v", "txt": {"video_qa": "~/train.jsonl"}}
    (train,) = load_qa({"train_datasets": [maps]}).config.train_datasets
    assert train.txt == {"video_qa": str(Path.home() / "train.jsonl")}


@pytest.mark.parametrize(
    ("changes", "flags", "expected"),
    [
        ({"e2e_weights_path": LONG}, [], "e2e_weights_path is "),
        ({"visual_model_cfg": f"/tmp/{LONG}/x"}, [], "visual_model_cfg is "),
        ({}, ["--output_dir", "ä" * 128], "--output_dir is "),
        ({}, ["--output_dir", "y/" * 3000], "--output_dir is "),
        ({}, ["--do_inference=1", "--output_dir", LONG], "--output_dir is "),
        ({}, ["--do_inference=1", "--inference_model_step", "../x"], "--inference_model_step = "),
        ({}, ["--train_datasets.0.name", LONG], "train_datasets.0.name is "),
        (
            {},
            ["--train_datasets.0.name", "a\x1b[31m"],
            'name is "a\\u001b[31m", which has a control',
        ),
        ({"freeze": ["a"] * 1001}, [], "freeze is "),
        ({"train_datasets": [{"name": "a"}] * 1001}, [], "train_datasets is "),
        ({}, ["--train_datasets.0.img", "caf\udce9"], 'img is "caf\\udce9", which is not UTF-8'),
        ({}, ["--freeze", "caf\udce9"], 'freeze is ["caf\\udce9"], which is not UTF-8'),
        ({}, ["--caf\udce9", "1"], "unknown flag --caf\\udce9."),
        ({}, [f"--{LONG}", "1"], "unknown flag --xxx"),
        ({}, [f"--train_datasets.{'9' * 5000}.img", "a"], "unknown flag --train_datasets.999"),
        ({}, [f"--train_datasets.0.txt{'.a' * 5000}", "a"], "unknown flag --train_datasets.0.txt"),
        ({}, ["--", "1"], "unknown flag --."),
        ({}, ["--num_frm="], '--num_frm is ""'),
        ({}, ["--seed", "9" * 5000], "--seed is "),
        ({LONG: 1}, [], "unknown key xxx"),
        ({"": 1}, [], 'unknown key "".'),
    ],
)
def test_a_text_without_end_or_sense(
    load: Any, changes: dict[str, Any], flags: list[str], expected: str
) -> None:
    errors = load.errors(changes, *flags)
    assert any(expected in error for error in errors)
    assert max(map(len, errors)) < 500
    "".join(errors).encode()


def test_a_stored_run_of_a_text_that_is_too_long_is_not_looked_for(load: Any) -> None:
    errors = load.errors({}, "--do_inference=1", "--inference_model_step", LONG)
    assert any(error.startswith("command line: --inference_model_step is ") for error in errors)


def test_a_million_unknown_keys_are_counted(write: Any) -> None:
    path = write("wide.json", json.dumps({f"key{number}": 0 for number in range(100_000)}))
    with pytest.raises(ConfigError) as caught:
        load_config(RetrievalConfig, ["--config", str(path)])
    assert any("99980 more unknown keys" in error for error in caught.value.errors)
    assert len(str(caught.value).splitlines()) < 60


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'\xef\xbb\xbf{"seeed": 1}', "unknown key seeed"),
        ('{"seeed": 1}'.encode("utf-16"), "unknown key seeed"),
        (b'{"output_dir": "caf\xe9"}', "not UTF-8 text"),
        (b'{"output_dir": "\\ud800x"}', "half a character"),
        (b'{"output_dir": "a\\u0000b"}', "zero character"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "nested more than 64 deep"),
    ],
)
def test_a_config_in_other_bytes(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="odd.json") as caught:
        load_config(RetrievalConfig, ["--config", str(path)])
    assert any(expected in error for error in caught.value.errors)


@pytest.mark.parametrize("place", ["/dev/zero", "/tmp", "nowhere/~"])
def test_a_config_that_is_no_file(place: str) -> None:
    with pytest.raises(ConfigError, match=r"named by --config\)"):
        load_config(RetrievalConfig, ["--config", place])
