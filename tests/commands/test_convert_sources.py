"""Published files that cannot be read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.commands.official_files import convert, msrvtt_info, write_json, write_lines

ENCRYPTED_BIT = 1
UNKNOWN_PACKING = 99


def archive(tmp_path: Path) -> Path:
    """An archive with MSR-VTT's JSON."""
    info = write_json(tmp_path / "MSRVTT_data.json", msrvtt_info({"video0": "train"}))
    path = tmp_path / "msrvtt.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.write(info, info.name)
    return path


@pytest.mark.parametrize(
    ("offset", "value", "told"),
    [(8, ENCRYPTED_BIT, "is encrypted"), (10, UNKNOWN_PACKING, "compression method")],
)
def test_archives_that_cannot_be_unpacked_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], offset: int, value: int, told: str
) -> None:
    path = archive(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + offset] = value  # of the entry in the table of contents
    content[content.index(b"PK\3\4") + offset - 2] = value
    path.write_bytes(content)
    assert convert("msrvtt", path, tmp_path / "out", "--split", "full") == 2
    message = capsys.readouterr().err
    assert told in message
    assert "unpack it and pass the folder" in message


def test_a_csv_file_with_an_endless_field_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    write_json(source / "MSRVTT_data.json", msrvtt_info({"video0": "train", "video4": "test"}))
    rows = ["key,vid_key,video_id,sentence", 'ret0,msr4,video4,"' + "x" * 200_000]
    write_lines(source / "MSRVTT_JSFUSION_test.csv", rows)
    assert convert("msrvtt", source, tmp_path / "out", "--split", "9k") == 2
    assert "not a CSV file (field larger than field limit" in capsys.readouterr().err
