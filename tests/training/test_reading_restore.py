"""A restore file that cannot be read for now is not a damaged one."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from alpro.errors import InputError
from alpro.training.checkpoints import load_restore, save_restore
from alpro.training.run_directory import RunDirectory
from alpro.training.stored_tensors import read_archive

WATCHED = "alpro.training.checkpoints._WatchedFile"


@pytest.fixture
def output(tmp_path: Path) -> RunDirectory:
    """A folder with the restore files of updates 2 (backup) and 4, larger than any buffer."""
    output = RunDirectory(tmp_path, rank=0)
    for step in (2, 4):
        save_restore(output, {"step": step, "model": {"weight": torch.zeros(1 << 20)}})
    return output


def files_of(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def check_refused(output: RunDirectory, path: Path, number: int) -> None:
    """The message names the file and the reason; nothing is renamed, nothing advised that loses."""
    before = files_of(output.root)
    with pytest.raises(InputError) as caught:
        load_restore(output)
    assert str(caught.value) == (
        f"{path}: cannot be read ({os.strerror(number)}). It is left as it is; see to it that it "
        "can be read, and give the same command again."
    )
    assert files_of(output.root) == before


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EACCES])
def test_a_restore_file_that_cannot_be_opened_is_an_error(
    output: RunDirectory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def opened(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(WATCHED, opened)
        check_refused(output, output.restore, number)
    state = load_restore(output)
    assert state is not None
    assert state["step"] == 4


def break_(file: Any) -> None:
    """Make a file's descriptor one for writing only, so that the system refuses to read on."""
    other = os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY)
    os.dup2(other, file.fileno())
    os.close(other)


def break_at(moment: str, patch: pytest.MonkeyPatch) -> None:
    """Let reading fail from a moment on."""
    archive, test = zipfile.ZipFile, zipfile.ZipFile.testzip

    def open_broken(file: Any) -> zipfile.ZipFile:
        break_(file)
        return archive(file)

    def test_broken(self: zipfile.ZipFile) -> str | None:
        break_(self.fp)
        return test(self)

    def load_broken(file: Any) -> Any:
        break_(file)
        return read_archive(file)

    stand_ins = {"open": open_broken, "test": test_broken, "load": load_broken}
    names = {
        "open": "zipfile.ZipFile",
        "test": "zipfile.ZipFile.testzip",
        "load": "alpro.training.checkpoints.read_archive",
    }
    patch.setattr(names[moment], stand_ins[moment])


@pytest.mark.parametrize("name", ["restore.pt", "restore_backup.pt"])
@pytest.mark.parametrize("moment", ["open", "test", "load"])
def test_an_error_of_the_file_system_while_reading_is_no_damage(
    output: RunDirectory, monkeypatch: pytest.MonkeyPatch, moment: str, name: str
) -> None:
    if name == "restore_backup.pt":
        output.restore.unlink()
    with monkeypatch.context() as patch:
        break_at(moment, patch)
        check_refused(output, output.root / name, errno.EBADF)
    state = load_restore(output)
    assert state is not None
    assert state["step"] == (4 if name == "restore.pt" else 2)


def test_a_damaged_file_stays_too_if_the_other_one_cannot_be_read(
    output: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    output.restore.write_bytes(b"")
    archive = zipfile.ZipFile

    def open_broken(file: Any) -> zipfile.ZipFile:
        if os.fstat(file.fileno()).st_size:
            break_(file)
        return archive(file)

    monkeypatch.setattr("zipfile.ZipFile", open_broken)
    check_refused(output, output.restore_backup, errno.EBADF)


def test_a_folder_in_the_place_of_a_restore_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "restore.pt").mkdir()
    with pytest.raises(InputError, match=r"restore\.pt: cannot be read \(Is a directory\)"):
        load_restore(RunDirectory(tmp_path, rank=0))
    assert (tmp_path / "restore.pt").is_dir()
