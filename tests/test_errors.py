from __future__ import annotations

import pytest

from src.errors import InputError, run_script


def fail() -> None:
    raise InputError("num_frm: many is no number.")


@pytest.mark.parametrize(
    ("interrupt", "line"),
    [
        (KeyboardInterrupt(), "interrupted\n"),
        (KeyboardInterrupt("go on like this"), "interrupted; go on like this\n"),
    ],
)
def test_an_interruption_ends_with_one_line(
    interrupt: KeyboardInterrupt, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise interrupt

    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == 130
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("environment", "beginning"),
    [
        ({}, "error: "),
        ({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "1"}, "error: "),
        ({"HOROVOD_RANK": "3", "HOROVOD_SIZE": "4"}, "error (rank 3): "),
    ],
)
def test_a_mistake_ends_with_one_message_that_names_the_process(
    environment: dict[str, str],
    beginning: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        run_script(fail)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"{beginning}num_frm: many is no number.\n"
