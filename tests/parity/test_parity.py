"""The parity check itself, and the small golden cases where the optional data is present."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.parity.cases import check_of
from tests.parity.check import main
from tests.parity.golden import golden_tensor, load_case
from tests.parity.report import Finding, compare_array, table
from tests.shared_data import shared_data

_SHARED = shared_data()
_IN_REPOSITORY = Path(__file__).parent / "golden_cases"
_GOLDEN = None if _SHARED is None else _SHARED / "golden"


@pytest.mark.skipif(_GOLDEN is None, reason="the optional folder of golden numbers is absent")
@pytest.mark.parametrize(
    "name",
    [
        *("retrieval_a", "qa_a", "prompter_a", "pretrain_a", "resize_a", "schedule_a"),
        *("clipvip_eval_a",),
        "clipvip_losses_a",
        *("clipvip_model_a", "clipvip_train_a"),
    ],
)
def test_golden_case(name: str) -> None:
    assert _GOLDEN is not None
    _check(_GOLDEN, name)


@pytest.mark.slow
@pytest.mark.skipif(_GOLDEN is None, reason="the optional folder of golden numbers is absent")
@pytest.mark.parametrize("name", ["full_retrieval_a", "clipvip_full_a"])
def test_golden_case_of_full_size(name: str) -> None:
    assert _GOLDEN is not None
    _check(_GOLDEN, name)


@pytest.mark.parametrize("name", ["retrieval_a", "schedule_a"])
def test_golden_case_of_the_repository(name: str) -> None:
    _check(_IN_REPOSITORY, name)


def _check(folder: Path, name: str) -> None:
    check = check_of(name)
    assert check is not None
    findings = check(load_case(folder, name))
    assert all(finding.agrees for finding in findings), "\n" + table(findings)


def test_checks_are_found_by_kind_for_any_letter() -> None:
    assert check_of("retrieval_a") is check_of("retrieval_b") is not None
    assert check_of("full_retrieval_z") is not check_of("retrieval_z")
    assert check_of("retrieval") is check_of("retrieval_10") is check_of("other_a") is None


def _write_schedule(folder: Path, *, constant: float) -> None:
    facts = {"learning_rate": 1.0, "num_train_steps": 4, "warmup_ratio": 0.0}
    (folder / "schedule_b.json").write_text(json.dumps(facts))
    np.savez(
        folder / "schedule_b.npz",
        linear=np.array([1.0, 0.75, 0.5, 0.25]),
        constant=np.full(3, constant),
        invsqrt=np.array([1.0]),
    )
    np.savez(folder / "unknown_a.npz", nothing=np.zeros(1))


def test_command_says_what_agrees_and_what_is_not_covered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_schedule(tmp_path, constant=1.0)
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("agrees") == 3
    assert "not covered: unknown_a" in printed


def test_command_fails_when_a_number_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_schedule(tmp_path, constant=1.001)
    assert main([str(tmp_path)]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "constant" in line)
    assert "DIFFERS" in line
    assert "9.99e-04" in line


def test_command_refuses_an_empty_folder(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2


def test_errors_that_no_tolerance_allows() -> None:
    assert not compare_array("c", "shape", torch.zeros(2), np.zeros(3)).agrees
    assert not Finding("c", "nan", float("nan"), 1.0).agrees


def test_rule_of_the_weights() -> None:
    assert golden_tensor("prompter.temp", ()).item() == pytest.approx(0.07)
    norm, bias = golden_tensor("a.weight", (1000,)), golden_tensor("a.bias", (1000,))
    assert norm.mean().item() == pytest.approx(1.0, abs=0.01)
    assert bias.std().item() == pytest.approx(0.05, rel=0.1)
    assert golden_tensor("a.weight", (50, 100)).std().item() == pytest.approx(0.1, rel=0.1)
    assert golden_tensor("a.weight", (8, 1, 10, 10)).std().item() == pytest.approx(0.1, rel=0.1)
    assert golden_tensor("cls_token", (1, 1, 900)).std().item() == pytest.approx(0.1, rel=0.1)
