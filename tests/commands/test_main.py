"""The command ``alpro``: its subcommands, their help, completion."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from alpro.commands.completion import main as completion
from alpro.commands.main import help_text, main
from alpro.commands.registry import COMMANDS
from alpro.errors import USER_ERROR_EXIT_CODE, InputError


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_that_names_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert not ended.value.code
    usage = capsys.readouterr().out.splitlines()[0]
    assert usage.startswith(f"usage: alpro {name} ")


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    assert capsys.readouterr().out == f"{help_text()}\n" * 2
    assert all(f"  {name} " in help_text() for name in COMMANDS)


def test_unknown_commands_get_the_closest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chek-data"]) == USER_ERROR_EXIT_CODE
    assert "no command 'chek-data'. Did you mean check-data?" in capsys.readouterr().err


def test_command_names_may_have_underscores(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["show_results", "--help"])
    assert "alpro show-results" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("alpro 0.")


def test_commands_and_flags_are_completed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    completion(["bash"])
    script = tmp_path / "completion.sh"
    stand_in = 'alpro() { echo "  --videos DIR, --output DIR, --n_workers N"; }\n'
    script.write_text(stand_in + capsys.readouterr().out)
    words = {"alpro ch": ["check-data"], "alpro check-data --o": ["--output"]}
    for line, expected in words.items():
        given = line.split()
        call = f"COMP_WORDS=({line}); COMP_CWORD={len(given) - 1}; _alpro; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(
            ["bash", "-c", f"source {script}; {call}"], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == expected


@pytest.mark.parametrize("name", ["contact-sheet", "demo-data"])
def test_commands_that_draw_name_the_package_that_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_pillow(_module: str) -> None:
        raise ModuleNotFoundError("No module named 'PIL'", name="PIL")

    monkeypatch.setattr("alpro.commands.main.import_module", without_pillow)
    with pytest.raises(InputError, match=f"alpro {name} needs Pillow, .*`pip install pillow`"):
        main([name])
