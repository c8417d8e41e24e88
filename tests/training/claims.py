"""Output folders, and runs that claim them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alpro.training.run_directory import RunDirectory

OWN = {"log/args.json", "log/model_config.json", "log/run.lock"}


def make_arguments(folder: Path) -> dict[str, Any]:
    """A resolved config, small."""
    model = folder / "model.json"
    model.write_text('{"hidden_size": 32}')
    return {
        **{"model_config": str(model), "learning_rate": 0.1, "betas": (0.9, 0.98)},
        **{"n_workers": 1, "n_gpu": 1, "num_train_steps": 10, "valid_steps": 4, "save_steps": 2},
        "architecture": {
            "model_config": {"hidden_size": 32},
            "visual_model_cfg": {"depth": 12, "drop_path_rate": 0.1},
        },
        "annotations_sha256": {"train.jsonl": "one", "val.jsonl": "two"},
    }


def claim(root: Path, arguments: dict[str, Any], *, overwrite: bool = False) -> None:
    output = RunDirectory(root, rank=0)
    output.claim(arguments, may_differ={"n_workers"}, overwrite=overwrite)


def make_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("old")


def files_of(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
