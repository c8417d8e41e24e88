"""The installer's decisions, with stand-ins for Python, the package manager and the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts.stubs import ROOT, Stubs, bash

# What the installer uses of the machine; nothing that builds or installs.
TOOLS = (
    "cat", "cut", "dirname", "grep", "head", "mkdir", "paste", "rm", "sed", "sha256sum", "tail",
    "tr", "true", "wc",
)  # fmt: skip

UV_PIN = next(
    line.removeprefix("uv==").strip()
    for line in (ROOT / "env/requirements-build.txt").read_text().splitlines()
    if line.startswith("uv==")
)

# A Python in which everything is installed already, but for what a test says through files.
PYTHON = f"""\
here=$(dirname "$0")
case "$*" in
    "-m uv --version") echo "uv {UV_PIN} (somewhere)" ;;
    *"sys.version_info"*) [ ! -e "$here/too-old" ] ;;
    *sysconfig*) echo "$here" ;;
    *verify_install.py*) echo "  torch    1  OK       works"; echo "  horovod  1  OK       works"
        [ ! -e "$here/fails" ] ;;
    *horovod-fits) [ ! -e "$here/no-horovod" ] ;;
    *torch-to-keep) [ ! -e "$here/other-torch" ] || echo 2.12.1 ;;
esac
"""


class Machine:
    """A machine of stand-ins with a Python environment."""

    def __init__(self, stubs: Stubs, folder: Path) -> None:
        self.stubs = stubs
        self.folder = folder
        self.environment = folder / "environment"
        self.bin = self.environment / "bin"
        self.bin.mkdir(parents=True)
        stubs.link(*TOOLS)
        stubs.add("python", then=PYTHON)
        (stubs.folder / "python").rename(self.bin / "python")
        (self.bin / "Python.h").touch()
        stubs.add("g++", "make", "bash")
        self.set_user(1000)

    def set_user(self, number: int) -> None:
        self.stubs.add("id", then=f"echo {number}")

    def remove(self, *programs: str) -> None:
        for program in programs:
            (self.stubs.folder / program).unlink()

    def install(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit code and all that is printed."""
        done = self.stubs.run(
            "env/install_pkg.sh", *arguments, folder=self.folder, path="",
            ALPRO_VENV=str(self.environment), **environment,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def actions(self) -> list[str]:
        """What was asked of programs that change or prove something."""
        calls = [call.words for call in self.stubs.calls("python", "bash", "apt-get")]
        known = ("pip install", "build.sh", "verify_install", "apt-get")
        return [line for line in map(" ".join, calls) if any(word in line for word in known)]


@pytest.fixture
def machine(stubs: Stubs, tmp_path: Path) -> Machine:
    return Machine(stubs, tmp_path)


def test_installs_proves_and_shows_the_table(machine: Machine) -> None:
    code, printed = machine.install()
    assert code == 0, printed
    packages, own, proof = machine.actions()
    assert "-m uv pip install" in packages
    assert "constraints.txt" in packages
    assert f"--no-deps --no-build-isolation -e {ROOT}" in own
    assert "verify_install.py" in proof
    assert "torch    1  OK       works" in printed
    assert "Installed in" in printed


def test_second_run_does_nothing(machine: Machine) -> None:
    machine.install()
    before = machine.actions()
    code, printed = machine.install()
    assert code == 0
    assert "is up to date" in printed
    assert machine.actions() == before


def test_force_installs_again(machine: Machine) -> None:
    machine.install()
    before = machine.actions()
    machine.install("--force")
    assert machine.actions() == before * 2


def test_a_replaced_torch_is_noticed(machine: Machine) -> None:
    machine.install()
    torch = machine.environment / "lib/python3.11/site-packages/torch"
    torch.mkdir(parents=True)
    (torch / "version.py").write_text("__version__ = '3'\n")
    _, printed = machine.install()
    assert "Installed in" in printed


def test_failed_proof_fails_and_is_tried_again(machine: Machine) -> None:
    (machine.bin / "fails").touch()
    code, printed = machine.install()
    assert code == 1
    assert "something required is missing" in printed
    (machine.bin / "fails").unlink()
    code, printed = machine.install()
    assert code == 0
    assert "Installed in" in printed


def test_another_torch_is_kept_and_gets_its_torchvision(machine: Machine) -> None:
    (machine.bin / "other-torch").touch()
    machine.install()
    requirements = machine.environment / "alpro-install/requirements.txt"
    lines = requirements.read_text().splitlines()
    assert "torch==2.12.1" in lines
    assert "torchvision" in lines
    assert "constraints.txt" not in machine.actions()[0]


def test_horovod_is_built_where_it_does_not_fit(machine: Machine) -> None:
    (machine.bin / "no-horovod").touch()
    code, _ = machine.install()
    assert code == 0
    builds = [line for line in machine.actions() if "build.sh" in line]
    assert builds == [f"bash {ROOT}/env/horovod_build/build.sh {machine.bin}/python"]


def test_without_compiler_or_rights_the_rest_is_installed(machine: Machine) -> None:
    (machine.bin / "no-horovod").touch()
    machine.remove("g++", "make")
    code, printed = machine.install()
    assert code == 0, printed
    packages, _, proof = machine.actions()
    assert "pip install" in packages
    assert "cannot be built without g++ make" in proof
    assert "as root, apt-get install g++ make" in proof


def test_horovod_can_be_left_out(machine: Machine) -> None:
    (machine.bin / "no-horovod").touch()
    code, printed = machine.install(ALPRO_HOROVOD="0")
    assert code == 0, printed
    actions = machine.actions()
    assert not any("build.sh" in line for line in actions)
    assert "left out, since ALPRO_HOROVOD is 0" in actions[-1]
    machine.install()  # now it is wanted
    assert any("build.sh" in line for line in machine.actions())


def test_a_compiler_that_appears_is_noticed(machine: Machine) -> None:
    (machine.bin / "no-horovod").touch()
    machine.remove("g++")
    machine.install()
    assert "up to date" in machine.install()[1]
    machine.stubs.add("g++")
    machine.install()
    assert any("build.sh" in line for line in machine.actions())


def test_root_on_debian_gets_what_is_missing(machine: Machine) -> None:
    (machine.bin / "no-horovod").touch()
    (machine.bin / "Python.h").unlink()
    machine.remove("g++")
    machine.set_user(0)
    stubs = machine.stubs.folder
    install = f": >{stubs}/g++; /bin/chmod +x {stubs}/g++; : >{machine.bin}/Python.h"
    machine.stubs.add("apt-get", then=f'[ "$1" = update ] || {{ {install}; }}')
    code, printed = machine.install()
    assert code == 0, printed
    assert [line for line in machine.actions() if "apt-get" in line] == [
        "apt-get update",
        "apt-get install -y --no-install-recommends g++ python3-dev",
    ]
    assert any("build.sh" in line for line in machine.actions())


def test_failed_build_shows_the_log_and_goes_on(machine: Machine) -> None:
    (machine.bin / "no-horovod").touch()
    machine.stubs.add("bash", then="echo the compiler said no >&2; exit 1")
    code, printed = machine.install()
    assert code == 0
    assert "| the compiler said no" in printed
    assert "could not be built" in machine.actions()[-1]


def test_horovod_can_be_insisted_on(machine: Machine) -> None:
    machine.install(ALPRO_REQUIRE_HOROVOD="1")
    assert "--require-horovod" in machine.actions()[-1]


def test_old_python_is_refused(machine: Machine) -> None:
    (machine.bin / "too-old").touch()
    code, printed = machine.install()
    assert code == 1
    assert "need 3.11 or later" in printed
    assert machine.actions() == []


def test_missing_python_is_named(stubs: Stubs, tmp_path: Path) -> None:
    stubs.link(*TOOLS)
    done = stubs.run("env/install_pkg.sh", folder=tmp_path, path="", ALPRO_PYTHON="no-such-python")
    assert done.returncode == 1
    assert "no-such-python not found: install Python 3.11 or later" in done.stderr


def test_unknown_option_shows_the_usage(machine: Machine) -> None:
    code, printed = machine.install("--what")
    assert code == 2
    assert "bash env/install_pkg.sh [--force]" in printed
    assert machine.actions() == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "/repository/.venv"),
        ({"CONDA_PREFIX": "/conda"}, "/conda"),
        ({"CONDA_PREFIX": "/conda", "VIRTUAL_ENV": "/active"}, "/active"),
        ({"VIRTUAL_ENV": "/active", "ALPRO_VENV": "/chosen"}, "/chosen"),
        ({"ALPRO_VENV": "chosen"}, "/repository/chosen"),
    ],
)
def test_which_environment_is_used(environment: dict[str, str], expected: str) -> None:
    printed = bash("source env/environment.sh; environment_folder /repository", **environment)
    assert printed == expected


def test_compiler_wrapper_raises_the_standard(stubs: Stubs) -> None:
    stubs.add("compiler")
    bash(
        'env/horovod_build/cxx17 -std=c++14 -g -O3 -Wl,-rpath,/tmp/x -DNAME="a b" -c x.cc',
        HOROVOD_BUILD_CXX=str(stubs.folder / "compiler"),
        STUB_CALLS=str(stubs.notes),
    )
    (call,) = stubs.calls()
    assert call.words == ["compiler", "-O1", "-DNAME=a b", "-c", "x.cc", "-std=gnu++17"]
