"""``--help`` and ``--print_config``."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alpro.configs.fields import fields_of, per_run_keys
from alpro.configs.loading import load_config
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig

ROOT = Path(__file__).parents[2]


def test_help_names_every_flag_by_topic(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        load_config(RetrievalConfig, ["--config", "nowhere.json", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for name in fields_of(RetrievalConfig):
        assert f"  --{name}" in text
    assert text.index("\nData:") < text.index("\nOptimization:") < text.index("\nRetrieval:")
    assert max(map(len, text.splitlines())) <= 100


def test_help_of_question_answering_has_its_own_topic_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        load_config(QaConfig, ["--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: python src/tasks/run_video_qa.py --config FILE")
    assert text.index("\nInference:") < text.index("\nQuestion answering:") < text.index("--task")
    assert "\nRetrieval:" not in text
    assert "default randaugment]" in text
    assert text.index("--frame_order") < text.index("--augmentation") < text.index("--max_txt_len")
    assert "  --classifier" not in text, "it has no effect"


def test_help_needs_no_heavy_library() -> None:
    program = (
        "import sys\n"
        "from alpro.configs.loading import load_config\n"
        "from alpro.tasks.retrieval.config import RetrievalConfig\n"
        "try: load_config(RetrievalConfig, ['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'torchvision'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_print_config_shows_values_and_sources(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        load({"num_workers": 3, "dropout": 0.1}, "--seed", "7", "--print_config")
    assert exit_.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert rows["seed"] == ["7", "flag"]
    assert rows["n_workers"] == ["3", "experiment.json", "(as", "num_workers)"]
    assert rows["log_interval"] == ["500", "default"]
    assert rows["train_datasets.0.img"] == ["pets/videos", "experiment.json"]
    assert rows["num_hidden_layers"] == ["12", "default"]
    assert lines[-1].startswith("Note: ")
    assert "dropout" in lines[-1]


def test_print_config_marks_needed_values_that_are_not_set(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        load({"output_dir": "drop"}, "--print_config")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "output_dir" in line]
    assert line.split(maxsplit=1)[1] == "(needed, not set)"


def test_print_config_still_reports_errors(load: Any) -> None:
    assert load.errors({"num_frm": 0}, "--print_config")


def test_keys_that_may_differ_when_a_run_continues() -> None:
    keys = per_run_keys(RetrievalConfig)
    assert {"n_workers", "log_interval", "num_threads", "output_dir"} <= keys
    assert not {"seed", "num_frm", "learning_rate", "precision", "train_batch_size"} & keys
