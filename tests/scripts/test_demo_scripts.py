"""The demo and the comparison, with stand-ins for what they start: which run starts from which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpro.configs.command_line import parse_flags
from tests.scripts.stubs import (
    ANSWERING,
    CONFIG_OF,
    PRETRAINING,
    PROMPTER,
    RETRIEVAL,
    ROOT,
    Stubs,
)

MAKE_FOLDER = """\
while [ $# -gt 1 ]; do
    [ "$1" != --output_dir ] || mkdir -p "$2"
    shift
done
"""
"""What a run does with its folder, for a stand-in."""


@pytest.fixture
def stand_ins(stubs: Stubs) -> Stubs:
    """All that a run script may start; `bash` too, since it is how they start the installer."""
    stubs.add("bash", "python")
    return stubs


def calls_of(script: str, stubs: Stubs, folder: Path, **environment: str) -> list[list[str]]:
    """The words of all that a script starts after the installer, which comes first."""
    stubs.notes.unlink(missing_ok=True)
    done = stubs.run(f"run_scripts/{script}", "--num_frm", "3", folder=folder, **environment)
    assert done.returncode == 0, done.stderr
    installer, *later = [call.words for call in stubs.calls()]
    assert installer == ["bash", "env/install_pkg.sh"]
    return later


def demo_calls(stubs: Stubs, folder: Path, **environment: str) -> list[list[str]]:
    return calls_of("demo.sh", stubs, folder, **environment)


def comparison_calls(stubs: Stubs, folder: Path, **environment: str) -> list[list[str]]:
    stubs.add("python", then=MAKE_FOLDER)
    environment = {"OUTPUT_DIR": str(folder / "compared"), **environment}
    return calls_of("compare_pretraining.sh", stubs, folder, **environment)


def values_of(words: list[str]) -> dict[str, str]:
    """Flag -> value of a call of an entry script."""
    return dict(zip(words[2::2], words[3::2], strict=True))


def trainings(calls: list[list[str]]) -> list[list[str]]:
    return [words for words in calls if words[1] in CONFIG_OF and "--do_inference" not in words]


def tools(calls: list[list[str]]) -> list[str]:
    return [words[3] for words in calls if words[1:3] == ["-m", "alpro"]]


def best_of(words: list[str]) -> str:
    """The checkpoint that a training run leaves."""
    return f"{values_of(words)['--output_dir']}/ckpt/model_step_best.pt"


def test_the_demo_is_a_chain_of_checkpoints(stand_ins: Stubs, tmp_path: Path) -> None:
    calls = demo_calls(stand_ins, tmp_path)
    runs = trainings(calls)
    assert [words[1] for words in runs] == [PROMPTER, PRETRAINING, RETRIEVAL, ANSWERING]
    assert all(words[-2:] == ["--num_frm", "3"] for words in runs)
    prompter, pretraining, retrieval, answering = runs
    teacher = values_of(pretraining)["--teacher_weights_path"]
    assert teacher == best_of(prompter)
    starts = [values_of(words)["--e2e_weights_path"] for words in runs[1:]]
    assert starts == [best_of(words) for words in (prompter, pretraining, retrieval)]
    configs = {name: demo_config(name) for name in ("demo_pretrain", "demo_ret", "demo_qa")}
    assert configs["demo_pretrain"]["teacher_weights_path"] == teacher
    assert configs["demo_pretrain"]["e2e_weights_path"] == teacher
    pretrained = best_of(pretraining)
    assert {configs[name]["e2e_weights_path"] for name in ("demo_ret", "demo_qa")} == {pretrained}


def demo_config(name: str) -> dict[str, str]:
    return json.loads((ROOT / f"config_release/{name}.json").read_text())


def test_the_demo_finds_entities_before_it_needs_them(stand_ins: Stubs, tmp_path: Path) -> None:
    calls = demo_calls(stand_ins, tmp_path)
    assert tools(calls) == [
        *("demo-data", "extract-entities", "show-entities"),
        *("contact-sheet", "answer-sheet", "index", "show-results", "show-results"),
    ]
    extraction = calls[1]
    assert extraction[4:] == ["--config", "config_release/demo_pretrain.json", "--overwrite"]
    assert demo_config("demo_pretrain")["entity_file_path"] == "data/demo/txt/entities.txt"
    counts = {demo_config(name)["num_entities"] for name in ("demo_prompter", "demo_pretrain")}
    assert len(counts) == 1


def test_the_demo_evaluates_what_it_has_trained(stand_ins: Stubs, tmp_path: Path) -> None:
    calls = demo_calls(stand_ins, tmp_path, OUTPUT_DIR="my output")
    evaluations = [
        (words[1], values_of(words)["--output_dir"], values_of(words)["--frame_order"])
        for words in calls
        if "--do_inference" in words
    ]
    assert evaluations == [
        (RETRIEVAL, "my output/demo_ret", "shuffled"),
        (RETRIEVAL, "my output/demo_ret", "reversed"),
        (ANSWERING, "my output/demo_qa", "reversed"),
    ]
    tables = [words[4:] for words in calls if words[2:4] == ["alpro", "show-results"]]
    assert tables == [
        ["--output_dir", "my output/demo_ret"],
        ["--output_dir", "my output/demo_qa"],
    ]


@pytest.mark.parametrize(("variables", "value"), [({}, "1"), ({"OVERWRITE": "0"}, "0")])
def test_the_demo_starts_anew_or_continues(
    stand_ins: Stubs, tmp_path: Path, variables: dict[str, str], value: str
) -> None:
    runs = trainings(demo_calls(stand_ins, tmp_path, **variables))
    assert [values_of(words)["--overwrite"] for words in runs] == [value] * 4


def test_the_comparison_differs_in_the_start_only(stand_ins: Stubs, tmp_path: Path) -> None:
    runs = trainings(comparison_calls(stand_ins, tmp_path, SEEDS="7"))
    assert [words[1] for words in runs] == [
        *(PROMPTER, PRETRAINING, PRETRAINING),
        *(RETRIEVAL, ANSWERING) * 3,
    ]
    prompter, pretraining, without = runs[:3]
    assert values_of(pretraining)["--teacher_weights_path"] == best_of(prompter)
    assert values_of(without)["--use_mpm"] == "0"
    starts = [["null"] * 2, [best_of(without)] * 2, [best_of(pretraining)] * 2]
    finetunings = [values_of(words) for words in runs[3:]]
    assert [flags["--e2e_weights_path"] for flags in finetunings] == sum(starts, [])
    for flags in finetunings:
        random = flags["--e2e_weights_path"] == "null"
        assert (flags.get("--random_init") == "1") == random
    same = [
        {
            key: value
            for key, value in flags.items()
            if key not in ("--e2e_weights_path", "--random_init", "--output_dir")
        }
        for flags in finetunings
    ]
    assert same[0::2] == [same[0]] * 3
    assert same[1::2] == [same[1]] * 3
    assert all(values_of(words)["--seed"] == "7" for words in runs)
    assert len({values_of(words)["--output_dir"] for words in runs}) == len(runs)


def test_the_flags_of_the_comparison_are_known(stand_ins: Stubs, tmp_path: Path) -> None:
    runs = trainings(comparison_calls(stand_ins, tmp_path, SEEDS="7"))
    for words in runs:
        flags = parse_flags(CONFIG_OF[words[1]], words[2:])
        assert (flags.problems, flags.ignored) == ([], [])


def test_the_comparison_shows_every_seed_of_every_kind(stand_ins: Stubs, tmp_path: Path) -> None:
    calls = comparison_calls(stand_ins, tmp_path)
    folders = {Path(values_of(words)["--output_dir"]) for words in trainings(calls)}
    table = calls[-1]
    assert table[2:4] == ["alpro", "compare-runs"]
    kinds = " ".join(table[4:]).split("--runs ")[1:]
    assert [kind.split(str(tmp_path))[0].strip() for kind in kinds] == [
        *("random weights", "pretrained without PEM", "pretrained"),
    ]
    shown = [word for word in table if word.startswith(str(tmp_path))]
    assert len(set(shown)) == 3 * 3
    finetuned = {Path(folder) / name for folder in shown for name in ("ret", "qa")}
    assert finetuned <= folders


def test_the_comparison_skips_what_is_finished(stand_ins: Stubs, tmp_path: Path) -> None:
    first = trainings(comparison_calls(stand_ins, tmp_path, SEEDS="7"))
    again = trainings(comparison_calls(stand_ins, tmp_path, SEEDS="7"))
    assert (len(first), again) == (9, [])
    more = trainings(comparison_calls(stand_ins, tmp_path, SEEDS="7 8"))
    assert {values_of(words)["--seed"] for words in more} == {"8"}


def test_the_comparison_repeats_what_started_from_another_checkpoint(
    stand_ins: Stubs, tmp_path: Path
) -> None:
    comparison_calls(stand_ins, tmp_path, SEEDS="7")
    changed = tmp_path / "compared/without_pem/seed_7/pretraining/ckpt/model_step_best.pt"
    changed.parent.mkdir()
    changed.write_text("of another training")
    calls = trainings(comparison_calls(stand_ins, tmp_path, SEEDS="7"))
    again = [values_of(words) for words in calls]
    assert [flags["--e2e_weights_path"] for flags in again] == [str(changed)] * 2
    assert all(flags["--overwrite"] == "1" for flags in again)


def test_the_comparison_goes_on_where_it_broke_off(stand_ins: Stubs, tmp_path: Path) -> None:
    stand_ins.add("python", then=f'[[ "$*" != */qa\\ * ]] || exit 3\n{MAKE_FOLDER}')
    broken = stand_ins.run(
        "run_scripts/compare_pretraining.sh", "--num_frm", "3",
        folder=tmp_path, SEEDS="7", OUTPUT_DIR=str(tmp_path / "compared"),
    )  # fmt: skip
    assert broken.returncode == 3
    left = trainings(comparison_calls(stand_ins, tmp_path, SEEDS="7"))
    assert [words[1] for words in left] == [
        ANSWERING, RETRIEVAL, ANSWERING, RETRIEVAL, ANSWERING,
    ]  # fmt: skip
