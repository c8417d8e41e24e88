"""Consoles that know few characters, whose reader has left, that are full or closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FULL_DEVICE = "/dev/full"  # Linux's device on which no space is left
ALL_WORK = "import os; os.write(9, b'done')"


def program(body: str) -> str:
    lines = body.replace("\n", "\n    ")
    imports = "import sys\nsys.path.insert(0, 'src')\nfrom alpro.program import console\n"
    return f"{imports}with console():\n    {lines}\n"


def run(body: str, *, redirect: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program from a shell; descriptor 9 leads to its standard output's other end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = f'exec 9>&1; "{sys.executable}" -c "$0" {redirect}'
    return subprocess.run(
        ["bash", "-c", command, program(body)],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, b"\\u89c6 caf\\xe9 \\udce9"),
        ({"PYTHONIOENCODING": "latin-1"}, b"\\u89c6 caf\xe9 \\udce9"),
        ({"PYTHONIOENCODING": "utf-8"}, "视 café \\udce9".encode()),
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, b"\\u89c6 caf\\xe9 \\udce9"),
        ({"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": "1"}, b"\\u89c6 caf\\xe9 \\udce9"),
    ],
)
def test_characters_that_cannot_be_shown_are_escaped(
    variables: dict[str, str], shown: bytes
) -> None:
    body = "text = '\\u89c6 caf\\xe9 \\udce9'\nprint(text)\nprint(text, file=sys.stderr)"
    done = run(body, **variables)
    assert done.returncode == 0
    assert done.stdout == shown + b"\n"
    assert done.stderr == shown + b"\n"


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_reader_that_leaves_ends_no_work(variables: dict[str, str]) -> None:
    body = f"print('first', flush=True)\nfor n in range(9999): print(n)\n{ALL_WORK}"
    done = run(body, redirect="| head -1; echo ${PIPESTATUS[0]}", **variables)
    assert done.stdout.splitlines()[0] == b"first"
    assert b"done" in done.stdout
    assert done.stdout.endswith(b"0\n")
    assert done.stderr == b""


@pytest.mark.parametrize("last", ["", "\nsys.exit(0)"])
def test_a_full_disk_under_standard_output_is_an_error_after_all_work(last: str) -> None:
    body = f"for n in range(9999): print(n)\n{ALL_WORK}{last}"
    done = run(body, redirect=f"> {FULL_DEVICE}")
    assert done.stdout == b"done"
    assert done.stderr.endswith(b"No space left on device: 'standard output'\n")


def test_a_full_disk_under_standard_error_is_no_reason_to_end() -> None:
    done = run(f"print('lost', file=sys.stderr)\n{ALL_WORK}", redirect=f"2> {FULL_DEVICE}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done", b"")


def test_other_errors_come_before_lost_output() -> None:
    done = run("print('lost')\nraise KeyError('first')", redirect=f"> {FULL_DEVICE}")
    assert done.stderr.endswith(b"KeyError: 'first'\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_files_of_the_run(tmp_path: Path, closed: str) -> None:
    path = tmp_path / "file"
    body = (
        f"file = open({str(path)!r}, 'w')\nprint('a')\nprint('b', file=sys.stderr)\n"
        f"import os\nfor n in (1, 2): os.write(n, b'c')\nfile.write('mine')\nsys.stdout.isatty()\n"
        f"{ALL_WORK}"
    )
    done = run(body, redirect=closed)
    assert done.returncode == 0
    assert b"done" in done.stdout
    assert path.read_text() == "mine"


def test_a_pipe_that_does_not_block_loses_nothing() -> None:
    body = "import os\nos.set_blocking(1, False)\nfor n in range(60000): print(n)"
    done = run(body, redirect="| cat")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split() == [str(n).encode() for n in range(60000)]


def test_a_current_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program(ALL_WORK)}"
    command = f'cd "{tmp_path}/gone"; rmdir "{tmp_path}/gone"; "{sys.executable}" -c "$0"'
    done = subprocess.run(["bash", "-c", command, code], capture_output=True, check=False)
    assert done.stderr.endswith(b"No such file or directory: 'the current folder'\n")
