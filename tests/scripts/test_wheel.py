"""The built wheel, alone in an empty folder: help, demo data, training, evaluation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.scripts.stubs import ROOT

FEW = ("--num_train_pairs", "16", "--num_val_pairs", "4", "--num_test_pairs", "4")
FEWER = (*("--num_pretrain_pairs", "8"), *("--num_images", "4"))
TRAINING = (
    *("--config", "config_release/demo_ret.json", "--output_dir", "run", "--device", "cpu"),
    *("--e2e_weights_path", "null", "--random_init", "1", "--num_train_epochs", "1"),
    *("--train_batch_size", "8", "--n_workers", "0", "--num_threads", "1"),
)


def test_the_wheel_alone_trains_and_evaluates(tmp_path: Path) -> None:
    wheels, package, folder = tmp_path / "wheels", tmp_path / "package", tmp_path / "empty"
    folder.mkdir()

    def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(package), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    offline = ("--no-deps", "--no-index", "--disable-pip-version-check", "-q")
    source = tmp_path / "source"  # setuptools builds in the folder itself
    for name in ("src", "config_release", "ext"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.py", "README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    run("pip", "wheel", *offline, "--no-build-isolation", "-w", str(wheels), str(source))
    (wheel,) = wheels.glob("alpro-*.whl")
    run("pip", "install", *offline, "--target", str(package), str(wheel))
    assert "check-data" in run("alpro", "--help", cwd=folder)
    run("alpro", "demo-data", *FEW, *FEWER, cwd=folder)
    run("alpro", "check-data", "--config", "config_release/demo_ret.json", cwd=folder)
    assert "No problems." in (folder / "output/data_check/report.html").read_text()
    run("alpro", "retrieval", *TRAINING, cwd=folder)
    (scores,) = folder.glob("run/results_test/*/scores.json")
    assert json.loads(scores.read_text())["protocol"]["num_videos"] == 8
    assert "text to video" in run("alpro", "show-results", "--output_dir", "run", cwd=folder)
