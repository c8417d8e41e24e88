"""Exact versions, ranges and the package list agree with one another and with the source tree."""

from __future__ import annotations

import importlib.util
import runpy
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.version import Version

import alpro
from tests.scripts.stubs import ROOT

REQUIREMENT_FILES = sorted((ROOT / "env").glob("requirements*.txt"))


def read_requirements(path: Path) -> dict[str, Requirement]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    return {requirement.name: requirement for requirement in requirements}


def exact_version(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not exact"
    assert "*" not in specifier.version
    return specifier.version


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return arguments


def load(name: str) -> ModuleType:
    """A file of env/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"env/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def verify_install() -> ModuleType:
    return load("verify_install")


def test_installed_versions_are_exact_and_agree() -> None:
    constraints = read_requirements(ROOT / "env/constraints.txt")
    assert len(REQUIREMENT_FILES) == 4
    for path in REQUIREMENT_FILES:
        for name, requirement in read_requirements(path).items():
            version = exact_version(requirement)
            if name != "horovod":  # built apart from the others
                assert exact_version(constraints[name]) == version, name


def test_setup_admits_what_is_installed(setup_arguments: dict[str, Any]) -> None:
    pins: dict[str, Requirement] = {}
    for path in REQUIREMENT_FILES:
        pins |= read_requirements(path)
    ranges = [*setup_arguments["install_requires"]]
    for name, extra in setup_arguments["extras_require"].items():
        if name != "torchcodec":  # the installer leaves it out: it needs libraries of the system
            ranges += extra
    for text in ranges:
        wanted = Requirement(text)
        assert wanted.specifier.contains(exact_version(pins[wanted.name])), text


def test_ranges_begin_at_the_oldest_versions(setup_arguments: dict[str, Any]) -> None:
    oldest = read_requirements(ROOT / "env/oldest.txt")
    texts = sum(setup_arguments["extras_require"].values(), setup_arguments["install_requires"])
    bounds = {
        wanted.name: Version(one.version)
        for wanted in map(Requirement, texts)
        for one in wanted.specifier
        if one.operator == ">="
    }
    # Linters and the documentation do not run there, and the last two need more than pip.
    elsewhere = {"mypy", "ruff", "mkdocs-material", "mkdocstrings", "horovod", "torchcodec"}
    expected = {name: Version(exact_version(requirement)) for name, requirement in oldest.items()}
    assert {name: bounds[name] for name in bounds.keys() - elsewhere} == expected


def test_every_place_names_the_same_python(setup_arguments: dict[str, Any]) -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    version = tools["mypy"]["python_version"]
    assert setup_arguments["python_requires"] == f">={version}"
    assert tools["ruff"]["target-version"] == "py" + version.replace(".", "")
    shim = tomllib.loads((ROOT / "env/torchvision_cpu/pyproject.toml").read_text())
    assert shim["project"]["requires-python"] == f">={version}"
    assert f"Python {version} or later" in (ROOT / "README.md").read_text()


def test_setup_names_every_package(setup_arguments: dict[str, Any]) -> None:
    folders = {path.parent for path in (ROOT / "src/alpro").rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT / "src").parts) for folder in folders}
    assert set(setup_arguments["packages"]) == names
    assert setup_arguments["version"] == alpro.__version__
    assert f"\nversion: {alpro.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_required_package_is_proven(verify_install: ModuleType) -> None:
    build_only = {"uv", "cffi", "cmake", "cloudpickle", "packaging", "psutil", "pyyaml"}
    build_only |= {"setuptools", "wheel"}
    pins = {name for path in REQUIREMENT_FILES for name in read_requirements(path)}
    assert pins - build_only == set(verify_install.PACKAGES)


def test_proof_names_what_is_missing(verify_install: ModuleType) -> None:
    row = verify_install._row("no-such-package")
    assert (row.state, row.required) == ("MISSING", True)
    assert row.note == "remedy: bash env/install_pkg.sh --force"


def test_proof_runs_a_check(verify_install: ModuleType) -> None:
    row = verify_install._row("av")
    assert row.state == "OK", row.note
    assert row.note == "8 frames of an h264 clip decoded, brightness right"


def test_proof_notices_wrong_frames(verify_install: ModuleType) -> None:
    assert "2 frames" in verify_install._compare([20.0, 44.0], [20, 45])
    with pytest.raises(AssertionError, match=r"differ by 25.0 grey levels"):
        verify_install._compare([20.0, 20.0], [20, 45])
    with pytest.raises(AssertionError, match="1 of 2 frames"):
        verify_install._compare([20.0], [20, 45])


@pytest.mark.parametrize(
    ("installed", "kept"),
    [
        ("2.13.0", ""),  # the pinned one: kept as it is, with or without CUDA
        ("2.13.0+cpu", ""),
        ("2.12.1+cpu", "2.12.1"),
        ("2.15.0", "2.15.0"),
        ("2.8.0", "2.8.0"),
        ("2.7.1", ""),
        ("3.0.0", ""),
    ],
)
def test_a_torch_within_the_range_is_kept(installed: str, kept: str) -> None:
    assert load("installed").torch_to_keep(installed) == kept
