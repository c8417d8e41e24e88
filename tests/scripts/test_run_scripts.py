"""The run scripts, with stand-ins for what they start: the command lines they end in."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from alpro.commands.registry import COMMANDS
from alpro.configs.command_line import parse_flags
from tests.scripts.stubs import (
    ANSWERING,
    BASH,
    CONFIG_OF,
    POST_PRETRAINING,
    PRETRAINING,
    PROMPTER,
    RETRIEVAL,
    ROOT,
    Stubs,
)

SHELL_FILES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("run_scripts/*", "env/*.sh", "env/horovod_build/*", ".ci/run")
    for path in ROOT.glob(pattern)
)
SETS = {
    "msrvtt_ret": RETRIEVAL,
    "didemo_ret": RETRIEVAL,
    "msrvtt_qa": ANSWERING,
    "msvd_qa": ANSWERING,
}
MSRVTT = "clip_data/vis_db/msrvtt_video_clips"
# Sets of CLIP-ViP -> their test captions and videos.
CLIP_VIP = {
    "msrvtt": (f"{MSRVTT}/test1ka.jsonl", f"{MSRVTT}/videos_6fps"),
    "didemo": (
        "datasets/lfvideo_data/task/didemo/test.jsonl",
        "datasets/didemo/didemo_video_xfps/",
    ),
    "lsmdc": ("clip_data/vis_db/lsmdc/test_1k_frame.jsonl", "datasets/lsmdc"),
    "actnet": (
        "clip_data/vis_db/anet_retrieval/val1.jsonl",
        "datasets/activitynet/ActivityNetVideoData2020Nov/video_frames_lr",
    ),
}
DATA = {name: (f"data/{name}/txt/test.jsonl", f"data/{name}/videos") for name in SETS} | {
    f"clip_vip/{name}_retrieval_vip_base_32": data for name, data in CLIP_VIP.items()
}
"""Config -> captions and videos that its script evaluates on."""
NAMES = {f"{name}.sh": name for name in SETS} | {
    f"clipvip_{name}.sh": f"clip_vip/{name}_retrieval_vip_base_32" for name in CLIP_VIP
}
"""End of a script's name -> config."""
SETS |= dict.fromkeys(DATA.keys() - SETS.keys(), RETRIEVAL)
FINETUNING = {f"run_scripts/ft_{script}": name for script, name in NAMES.items()}
STAGES = {
    "prompter": (PROMPTER, "8", "pretrain_prompter"),
    "alpro": (PRETRAINING, "16", "pretrain_alpro"),
    "clipvip_b32": (POST_PRETRAINING, "8", "clip_vip/pretrain_vip_base_32"),
    "clipvip_b16": (POST_PRETRAINING, "8", "clip_vip/pretrain_vip_base_16"),
}
"""Stage of pretraining -> script, number of processes, and config."""
PRETRAINING_SCRIPTS = {f"run_scripts/pt_{stage}.sh": stage for stage in STAGES}
SCRIPT_OF = {
    **{script: SETS[name] for script, name in FINETUNING.items()},
    **{script: STAGES[stage][0] for script, stage in PRETRAINING_SCRIPTS.items()},
}
INFERENCE = {f"run_scripts/inf_{script}": name for script, name in NAMES.items()}


@pytest.fixture
def stand_ins(stubs: Stubs) -> Stubs:
    """All that a run script may start; `bash` too, since it is how they start the installer."""
    stubs.add("horovodrun", "python", "bash")
    stubs.add_hosts()
    return stubs


def only_words(stubs: Stubs) -> list[str]:
    """The words of the one program that was started."""
    (call,) = stubs.calls()
    assert call.folder == str(ROOT)
    assert str(ROOT / "src") in call.environment["PYTHONPATH"].split(":")
    return call.words


@pytest.mark.parametrize("script", SHELL_FILES)
def test_is_valid_bash(script: str) -> None:
    subprocess.run([BASH, "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("script", [*SCRIPT_OF, *INFERENCE, ".ci/run", "env/install_pkg.sh"])
def test_can_be_executed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize(("script", "name"), FINETUNING.items())
def test_finetuning_command_is_the_originals(
    script: str, name: str, stand_ins: Stubs, tmp_path: Path
) -> None:
    done = stand_ins.run(script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    words = only_words(stand_ins)
    output = words.pop()
    assert words == [
        "horovodrun", "-np", "8", "python", SETS[name],
        "--config", f"config_release/{name}.json", "--output_dir",
    ]  # fmt: skip
    assert re.fullmatch(rf"output/finetune/{name}/\d{{14}}", output)
    assert f"+ horovodrun -np 8 python {SETS[name]}" in done.stdout


@pytest.mark.parametrize(("script", "stage"), PRETRAINING_SCRIPTS.items())
def test_pretraining_command_is_the_originals(
    script: str, stage: str, stand_ins: Stubs, tmp_path: Path
) -> None:
    done = stand_ins.run(script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    words = only_words(stand_ins)
    output = words.pop()
    entry, num_processes, config = STAGES[stage]
    assert words == [
        "horovodrun", "-np", num_processes, "python", entry,
        "--config", f"config_release/{config}.json", "--output_dir",
    ]  # fmt: skip
    assert re.fullmatch(rf"output/pretrain/{stage}/\d{{14}}", output)


@pytest.mark.parametrize(("script", "name"), INFERENCE.items())
def test_inference_command_is_the_originals(
    script: str, name: str, stand_ins: Stubs, tmp_path: Path
) -> None:
    stand_ins.run(script, folder=tmp_path)
    assert only_words(stand_ins) == [
        "horovodrun", "-np", "8", "python", SETS[name],
        "--do_inference", "1",
        "--inference_split", "test",
        "--inference_model_step", "best",
        "--inference_txt_db", DATA[name][0],
        "--inference_img_db", DATA[name][1],
        "--inference_batch_size", "64",
        "--output_dir", f"output/downstreams/{name}/public",
        "--config", f"config_release/{name}.json",
    ]  # fmt: skip


@pytest.mark.parametrize("script", ["run_scripts/ft_msrvtt_ret.sh", *PRETRAINING_SCRIPTS])
def test_training_reads_the_environment_and_passes_flags_on(
    script: str, stand_ins: Stubs, tmp_path: Path
) -> None:
    stand_ins.run(
        script, "--seed", "7", "--train_datasets.0.img", "my videos",
        folder=tmp_path, NUM_PROCESSES="4", HOSTS="a:2,b:2", CONFIG="my.json",
        OUTPUT_DIR="output/my run", BATCH_SIZE="3",
    )  # fmt: skip
    assert only_words(stand_ins) == [
        "horovodrun", "-np", "4", "-H", "a:2,b:2", "python", SCRIPT_OF[script],
        "--config", "my.json", "--output_dir", "output/my run", "--train_batch_size", "3",
        "--seed", "7", "--train_datasets.0.img", "my videos",
    ]  # fmt: skip


def test_inference_reads_the_environment(stand_ins: Stubs, tmp_path: Path) -> None:
    stand_ins.run(
        "run_scripts/inf_didemo_ret.sh",
        folder=tmp_path, NUM_PROCESSES="1", CONFIG="my.json", OUTPUT_DIR="o", STEP="last",
        TXT_DB="t.jsonl", IMG_DB="v", BATCH_SIZE="5",
    )  # fmt: skip
    words = only_words(stand_ins)
    assert words[:2] == ["python", RETRIEVAL]
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    assert flags == {
        "--do_inference": "1",
        "--inference_split": "test",
        "--inference_model_step": "last",
        "--inference_txt_db": "t.jsonl",
        "--inference_img_db": "v",
        "--inference_batch_size": "5",
        "--output_dir": "o",
        "--config": "my.json",
    }


@pytest.mark.parametrize("script", [*SCRIPT_OF, *INFERENCE])
def test_one_process_needs_no_launcher(script: str, stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("python")
    done = stubs.run(script, folder=tmp_path, NUM_PROCESSES="1")
    assert done.returncode == 0, done.stderr
    assert only_words(stubs)[:2] == ["python", SCRIPT_OF.get(script) or SETS[INFERENCE[script]]]


def test_missing_launcher_is_named_with_its_remedy(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("python")
    done = stubs.run("run_scripts/ft_msrvtt_ret.sh", folder=tmp_path)
    assert done.returncode == 1
    assert "horovodrun not found: run env/install_pkg.sh, or set NUM_PROCESSES=1" in done.stderr
    assert stubs.calls() == []


def test_exit_code_of_the_program_is_the_scripts(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("python", then="exit 2")
    done = stubs.run("run_scripts/ft_msrvtt_ret.sh", folder=tmp_path, NUM_PROCESSES="1")
    assert done.returncode == 2


def test_environment_of_the_project_comes_first(stand_ins: Stubs, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    stand_ins.add("marked")
    (stand_ins.folder / "marked").rename(environment / "bin/python")
    stand_ins.run(
        "run_scripts/ft_msrvtt_ret.sh",
        folder=tmp_path, NUM_PROCESSES="1", ALPRO_VENV=str(environment),
    )  # fmt: skip
    (call,) = stand_ins.calls()
    assert call.environment["PATH"].startswith(f"{environment}/bin:")


def test_test_script_installs_then_checks(stand_ins: Stubs, tmp_path: Path) -> None:
    done = stand_ins.run("run_scripts/test.sh", "-k", "a or b", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [call.words for call in stand_ins.calls()] == [
        ["bash", "env/install_pkg.sh"],
        ["python", "-m", "ruff", "check"],
        ["python", "-m", "ruff", "format", "--check"],
        ["python", "-m", "mypy"],
        ["python", "-m", "mkdocs", "build", "--quiet", "--strict"],
        ["python", "-m", "pytest", "-n", "auto", "--durations", "15", "-k", "a or b"],
    ]


def test_test_script_stops_at_the_first_failure(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("bash")
    stubs.add("python", then='[ "$2" != mypy ]')
    assert stubs.run("run_scripts/test.sh", folder=tmp_path).returncode == 1
    assert [call.words[-1] for call in stubs.calls("python")] == ["check", "--check", "mypy"]


def test_ci_runs_the_test_script_and_insists_on_horovod(stand_ins: Stubs, tmp_path: Path) -> None:
    assert stand_ins.run(".ci/run", folder=tmp_path).returncode == 0
    (call,) = stand_ins.calls()
    assert call.words[0] == "bash"
    assert Path(call.words[1]).resolve() == ROOT / "run_scripts/test.sh"
    assert call.environment["ALPRO_REQUIRE_HOROVOD"] == "1"


def python_calls(script: str, stubs: Stubs, folder: Path) -> list[list[str]]:
    """The words after `python` of all that a script starts."""
    done = stubs.run(script, folder=folder, NUM_PROCESSES="1")
    assert done.returncode == 0, done.stderr
    return [call.words[1:] for call in stubs.calls("python")]


@pytest.mark.parametrize("script", [*SCRIPT_OF, *INFERENCE, "run_scripts/demo.sh"])
def test_names_existing_files(script: str, stand_ins: Stubs, tmp_path: Path) -> None:
    for words in python_calls(script, stand_ins, tmp_path):
        if words[0] == "-m":
            assert words[1] == "alpro"
            assert words[2] in COMMANDS
        else:
            assert (ROOT / words[0]).is_file()
            assert (ROOT / words[words.index("--config") + 1]).is_file()


@pytest.mark.parametrize("script", [*SCRIPT_OF, *INFERENCE, "run_scripts/demo.sh"])
def test_flags_are_known_to_the_config(script: str, stand_ins: Stubs, tmp_path: Path) -> None:
    calls = [words for words in python_calls(script, stand_ins, tmp_path) if words[0] != "-m"]
    assert calls
    for words in calls:
        flags = parse_flags(CONFIG_OF[words[0]], words[1:])
        assert flags.problems == []
        assert flags.ignored == []
