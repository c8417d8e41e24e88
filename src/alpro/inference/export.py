"""Export of a run's checkpoint as a model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from alpro import __version__
from alpro.configs.fields import fields_of
from alpro.configs.loading import plain
from alpro.datasets.annotations import sha256_of
from alpro.datasets.tokenization import FURTHER_FILES
from alpro.errors import InputError
from alpro.families.registry import family_config
from alpro.file_kinds import MODEL_CONFIG, MODEL_WEIGHTS
from alpro.inference.model_folder import (
    CARD,
    FORMAT,
    VERSION,
    StoredModel,
    from_run,
    read_object,
)
from alpro.training.atomic_io import write_atomically, write_json, write_text
from alpro.training.state_dicts import read_state

TOKENIZER_FILES = ("vocab.txt", "vocab.json", "merges.txt", "tokenizer.json", *FURTHER_FILES)
KEPT_KEYS = (
    *("family", "num_frm", "test_num_frm", "frm_sampling_strategy", "sample_rate"),
    *("crop_img_size", "img_pixel_mean", "img_pixel_std", "img_input_format", "max_txt_len"),
    *("score_agg_func", "precision", "fp16", "attention", "use_itm"),
)
"""Config keys that a model is used by, besides its family's own."""


def export_model(run: Path | str, output: Path | str, *, step: str = "best") -> Path:
    """Write the model folder of a run's checkpoint.

    Args:
        run: output folder of the run.
        output: new folder.
        step: ``best``, ``last`` or an update.

    Raises:
        InputError: the run has no such checkpoint, or `output` exists and holds something.
    """
    from safetensors.torch import save_file

    run, output = Path(run).expanduser(), Path(output).expanduser()
    stored = from_run(run, step=step)
    files = sorted(run.glob("results_*/*/scores.json"))
    scores = {str(one.parent.relative_to(run)): read_object(one) for one in files}
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: exists and is not empty. Name a new folder with --output.")
    # Copy weights and tokenizer; tied tensors are stored once for each of their names.
    output.mkdir(parents=True, exist_ok=True)
    state = read_state(stored.weights, stored.family.checkpoint.roots)
    tensors = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    write_atomically(
        output / MODEL_WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"})
    )
    for name in TOKENIZER_FILES:
        source = stored.tokenizer_dir / name
        if source.is_file():
            write_atomically(output / name, partial(shutil.copyfile, source))
    write_text(output / CARD, model_card(stored, scores, run=run.name, step=step))
    # The config comes last: it has the hashes of all others.
    names = sorted(path.name for path in output.iterdir())
    config_keys = fields_of(type(stored.config)).keys()
    own_keys = fields_of(family_config(stored.config.family).options).keys()
    kept = [key for key in config_keys if key in KEPT_KEYS or key in own_keys]
    paths = {key for key, option in fields_of(type(stored.config)).items() if option.rule.path}
    values = plain(stored.config)
    write_json(
        output / MODEL_CONFIG,
        {
            "format": FORMAT,
            "version": VERSION,
            "exported_by": __version__,
            "script": stored.config.SCRIPT,
            "config": {key: values[key] for key in kept if key not in paths},
            "architecture": {key: asdict(one) for key, one in stored.architecture.items()},
            "labels": stored.labels,
            "scores": scores,
            "sha256": {name: sha256_of(output / name) for name in names},
        },
    )
    return output


def model_card(stored: StoredModel, scores: Mapping[str, Any], *, run: str, step: str) -> str:
    """Text of the README of a model folder: what the model is, how to use it, what it reached.

    `scores` are the contents of each ``scores.json`` of the run, by folder.
    """
    config, videos = stored.config, "videos whose frames are squares of"
    lines = [
        f"# {run}",
        "",
        f"A model of the family `{config.family}` for {config.TASK.replace('_', ' ')}, the "
        f"checkpoint `{step}` of a run of alpro {__version__}: {videos} {config.crop_img_size} "
        f"pixels, {config.num_evaluated_frames} a video (`{config.frm_sampling_strategy}`), and "
        f"texts of at most {config.max_txt_len} tokens.",
        "",
        "```python",
        "import alpro",
        'model = alpro.load("PATH OF THIS FOLDER")',
        'model.answer("what is shown?", "clip.mp4")'
        if stored.labels
        else 'model.similarity(["a caption"], ["clip.mp4"])',
        "```",
        "",
    ]
    for folder, reached in scores.items():
        lines += [f"## {folder}", "", "```json", json.dumps(reached, indent=2), "```", ""]
    return "\n".join(lines if scores else [*lines, "The run was not evaluated.", ""])
