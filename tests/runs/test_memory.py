"""Models and batches that do not fit into memory are refused before they are built."""

from __future__ import annotations

import json
import math
import resource
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from alpro.configs.loading import ResolvedConfig, load_config
from alpro.distributed.engine import SingleProcess
from alpro.errors import InputError
from alpro.experiment.experiment import Experiment
from alpro.families.alpro.family import KEPT_PER_BLOCK
from alpro.families.alpro.retrieval import build_retrieval_model
from alpro.runs import memory
from alpro.runs.memory import check_batches, check_model, free_memory
from alpro.tasks.pretraining.config import PrompterConfig
from alpro.tasks.retrieval.config import RetrievalConfig
from tests.factories import CPU, IMAGE_SIZE, NUM_FRAMES, PATCH_SIZE, WIDTH, TinyExperiment

CLIP = NUM_FRAMES * 3 * IMAGE_SIZE**2  # bytes of the frames of a clip
KEPT = KEPT_PER_BLOCK * NUM_FRAMES * (IMAGE_SIZE // PATCH_SIZE) ** 2 * WIDTH * 2


@pytest.fixture
def experiment(tmp_path: Path) -> TinyExperiment:
    return TinyExperiment(tmp_path)


@pytest.fixture
def set_free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set how many bytes are free on every device."""
    return lambda free: monkeypatch.setattr(memory, "free_memory", lambda _device: free)


def resolved_of(experiment: TinyExperiment, *flags: str, **changes: Any) -> ResolvedConfig[Any]:
    return load_config(RetrievalConfig, experiment.arguments(*flags, **changes))


def checked(resolved: ResolvedConfig[Any]) -> None:
    check_model(experiment_of(resolved))


def experiment_of(resolved: ResolvedConfig[Any]) -> Experiment[Any]:
    return Experiment(resolved, engine=SingleProcess(CPU, scale_loss=False))


@pytest.mark.parametrize("frozen", [[], ["visual_encoder.*"]])
def test_a_model_is_trained_if_weights_gradients_and_averages_fit(
    experiment: TinyExperiment, set_free: Any, frozen: list[str]
) -> None:
    resolved = resolved_of(experiment, freeze=frozen)
    model: nn.Module = build_retrieval_model(resolved.config, resolved.architecture)
    if frozen:
        model.visual_encoder.requires_grad_(False)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    needed = sum(4 * size + 12 * size * is_trained for size, is_trained in sizes)
    set_free(needed)
    checked(resolved)
    set_free(needed - 1)
    with pytest.raises(InputError, match="with gradients and the optimizer's averages") as caught:
        checked(resolved)
    total = sum(size for size, _ in sizes)
    assert str(caught.value).startswith(f"the model has {total:,} parameters (")
    for shown in ("depth 1, embed_dim 32", "video_model.json", "vocab_size 25", "text_model.json"):
        assert shown in str(caught.value)


def test_a_model_is_evaluated_if_its_weights_fit(experiment: TinyExperiment, set_free: Any) -> None:
    weights = ("--e2e_weights_path", str(experiment.root / "model.pt"))
    arguments = experiment.inference(*weights)
    resolved = load_config(RetrievalConfig, arguments)
    model = build_retrieval_model(resolved.config, resolved.architecture)
    needed = 4 * sum(p.numel() for p in model.parameters())
    set_free(needed)
    checked(resolved)
    set_free(needed - 1)
    with pytest.raises(InputError, match=r"of memory; .* are free \(cpu\)"):
        checked(resolved)


def test_the_entities_of_a_prompter_are_named(experiment: TinyExperiment, set_free: Any) -> None:
    sets = {"train_datasets": [{"name": "a", "ann": "a.csv", "img": "v"}]}
    values = {**experiment.values, **sets, "val_datasets": sets["train_datasets"]}
    del values["test_datasets"]
    path = experiment.write("prompter.json", values)
    resolved = load_config(
        PrompterConfig, ["--config", str(path), "--output_dir", "out", "--num_entities", "1000"]
    )
    set_free(0)
    with pytest.raises(InputError, match="num_entities 1000: lower what is too large"):
        check_model(experiment_of(resolved))


def test_a_model_as_large_as_its_limits_is_refused_without_building_it(
    experiment: TinyExperiment,
) -> None:
    values = json.loads((experiment.root / "video_model.json").read_text())
    experiment.write("video_model.json", {**values, "embed_dim": 65536, "depth": 50})
    values = json.loads((experiment.root / "text_model.json").read_text())
    experiment.write("text_model.json", {**values, "hidden_size": 65536, "vocab_size": 10**7})
    with pytest.raises(InputError, match=r"in visual_encoder and .* in text_encoder"):
        checked(resolved_of(experiment))


def test_checking_a_model_draws_no_random_number(experiment: TinyExperiment) -> None:
    before = torch.get_rng_state()
    checked(resolved_of(experiment))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_of_which_nothing_is_trained_is_refused(experiment: TinyExperiment) -> None:
    with pytest.raises(InputError, match=r"freeze: '\*' leaves no parameter to train"):
        checked(resolved_of(experiment, freeze=["*"]))


@pytest.mark.parametrize(
    ("changes", "num_samples", "needed"),
    [
        ({"n_workers": 0}, 6, CLIP * (3 + 1) + 3 * (4 * CLIP + KEPT)),
        ({"n_workers": 0}, 2, CLIP * (2 + 1) + 2 * (4 * CLIP + KEPT)),  # fewer than a batch
        ({"n_workers": 2}, 6, CLIP * (9 * 3 + 2) + 3 * (4 * CLIP + KEPT)),  # 4 ahead for each
        ({"n_workers": 0, "grad_cache_size": 1}, 6, CLIP * (3 + 1) + 4 * CLIP + KEPT),
        (
            {"n_workers": 0, "train_n_clips": 2},
            *(6, CLIP * 2 * (3 + 1) + 2 * 3 * (4 * CLIP + KEPT)),
        ),
        (
            {"n_workers": 0, "train_n_clips": 2, "grad_cache_size": 5},
            *(6, CLIP * 2 * (3 + 1) + 5 * (4 * CLIP + KEPT)),
        ),
        ({"n_workers": 0, "freeze": ["temp"]}, 6, CLIP * (3 + 1) + 3 * 4 * CLIP),
    ],
)
def test_a_training_batch_and_those_read_ahead_must_fit(
    experiment: TinyExperiment,
    set_free: Any,
    changes: dict[str, Any],
    num_samples: int,
    needed: int,
) -> None:
    check = partial(
        check_batches,
        experiment_of(resolved_of(experiment, **changes)),
        size_key="train_batch_size",
        num_samples=num_samples,
    )
    set_free(needed)
    check()
    set_free(needed - 1)
    with pytest.raises(InputError, match="num_frm 2, crop_img_size 32, train_batch_size 3, n_work"):
        check()


def test_clips_of_an_evaluation_are_encoded_one_after_the_other(
    experiment: TinyExperiment, set_free: Any
) -> None:
    resolved = resolved_of(experiment, n_workers=1, val_batch_size=2, inference_n_clips=5)
    arguments: dict[str, Any] = {"size_key": "val_batch_size", "num_clips": 5}
    needed = CLIP * 5 * (3 * 2 + 1) + 2 * 4 * CLIP  # of 5 videos, 3 batches are read
    set_free(needed)
    check_batches(experiment_of(resolved), num_samples=5, **arguments)
    set_free(needed - 1)
    with pytest.raises(InputError, match="val_batch_size 2, n_workers 1, inference_n_clips 5"):
        check_batches(experiment_of(resolved), num_samples=5, **arguments)


def test_free_memory_is_what_the_narrowest_limit_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_memory(CPU)
    assert 0 < free < math.inf
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = (used + 1_000_000_000, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits)
    assert 0 < free_memory(CPU) <= min(free * 2, 1_000_000_000)
    monkeypatch.setattr(memory, "_lines", lambda _path: [])
    assert free_memory(CPU) == math.inf


@pytest.mark.parametrize(
    ("line", "folder", "limit_name", "use_name", "cache"),
    [
        ("0::/job/step", "", "memory.max", "memory.current", "inactive_file 7\nactive_file 3\n"),
        (
            "4:cpu,memory:/job/step",
            "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "inactive_file 1\ntotal_inactive_file 7\ntotal_active_file 3\n",
        ),
    ],
)
def test_limits_of_containers_and_jobs_count(
    tmp_path: Path, line: str, folder: str, limit_name: str, use_name: str, cache: str
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"3:cpuset:/x\n{line}\n")
    top = tmp_path / "cgroup" / folder
    (top / "job/step").mkdir(parents=True)
    for group, limit in (("job", "1000"), ("job/step", "max"), ("", "5000")):
        (top / group / limit_name).write_text(f"{limit}\n")
        (top / group / use_name).write_text("400\n")
    (top / "job/memory.stat").write_text(cache)
    found = memory._memory_of_cgroups(tmp_path / "proc", tmp_path / "cgroup")
    assert list(found) == [1000 - 400 + 10, 5000 - 400]
