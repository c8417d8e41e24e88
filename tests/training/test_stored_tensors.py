"""Tensors in files: those that were saved, or refused by name before they take memory."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alpro.training.state_dicts import read_weights
from tests.training.weight_makers import WEIGHTS, refused, saved, zipped

TENSORS: dict[str, Tensor] = {
    "parameter": nn.Parameter(torch.randn(3, 2)),
    "transposed": torch.randn(3, 2).t(),
    "strided": torch.randn(10)[1:8:3],
    "view": torch.randn(50)[7:13].view(2, 3),
    "expanded": torch.randn(3, 1).expand(3, 4),
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 3),
    **{
        str(dtype): torch.ones(3).to(dtype)
        for dtype in (
            *(torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
            *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
            *(torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16),
        )
    },
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_those_that_were_saved(tmp_path: Path, name: str, legacy: bool) -> None:
    value = TENSORS[name]
    (tmp_path / "x.pt").write_bytes(saved({"before": torch.ones(5), "x": value}, legacy=legacy))
    found = read_weights(tmp_path / "x.pt")["x"]
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert torch.equal(found.to(torch.complex64), value.to(torch.complex64))
    assert not found.requires_grad


def not_strided(kind: str) -> Tensor:
    made = {
        "sparse": lambda: torch.eye(3).to_sparse(),
        "meta tensor": lambda: torch.zeros(3, device="meta"),
        "negative view": lambda: torch.complex(torch.zeros(2), torch.ones(2)).conj().imag,
    }
    return made[kind]()


@pytest.mark.parametrize("kind", ["sparse", "meta tensor", "negative view"])
def test_tensors_of_other_layouts_are_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x.pt").write_bytes(saved({"x": not_strided(kind)}))
    assert refused(tmp_path / "x.pt").startswith("x is ")
    assert kind in refused(tmp_path / "x.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_giant_expanded_view_takes_no_memory(tmp_path: Path, legacy: bool) -> None:
    giant = torch.zeros(1).expand(1 << 20, 1 << 20, 1 << 10)
    (tmp_path / "x.pt").write_bytes(saved({"x": giant}, legacy=legacy))
    assert "x is an expanded view: it declares 1,125,899,906,842,624" in refused(tmp_path / "x.pt")


def archive_of(shape: str, strides: str, *, offset: int = 0) -> bytes:
    """An archive with a tensor of one number that declares what it likes."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuI1\ntQ"
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + f"I{offset}\n".encode()
        + shape.encode() + strides.encode() + b"I00\nccollections\nOrderedDict\n)RtR"
    )  # fmt: skip
    members = {"x/data.pkl": b"}X\x01\0\0\0x" + tensor + b"s.", "x/data/0": struct.pack("<f", 1.0)}
    return zipped(members)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ("(I4\nt", "(I1\nt", 0),
        ("(I1\nt", "(I1\nt", 1),
        ("(I1\nt", "(I1\nt", -1),
        ("(I2\nt", "(I-1\nt", 0),
        ("(I-2\nt", "(I1\nt", 0),
        ("(I1\nI1\nt", "(I1\nt", 0),
        ("(I0\n" + "I1152921504606846976\n" * 3 + "t", "(I1\nI1\nI1\nI1\nt", 0),
        ("(I" + "9" * 400 + "\nt", "(I0\nt", 0),
        ("N", "N", 0),
        ("(" + "I1\n" * 3000 + "t", "(" + "I1\n" * 3000 + "t", 0),
    ],
)
def test_declared_sizes_are_compared_with_the_file(
    tmp_path: Path, shape: str, strides: str, offset: int
) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(archive_of("(I1\nt", "(I1\nt"))
    assert read_weights(path)["x"].tolist() == [1.0]
    path.write_bytes(archive_of(shape, strides, offset=offset))
    assert refused(path).startswith("x ")


def test_compressed_archives_are_refused_unread(tmp_path: Path) -> None:
    bomb = zipped({"x/data.pkl": b"N" * (1 << 24)}, compression=zipfile.ZIP_DEFLATED)
    (tmp_path / "x.pt").write_bytes(bomb)
    assert "its parts are compressed" in refused(tmp_path / "x.pt")


@pytest.mark.parametrize("place", [20, 24, 42])
def test_an_archive_that_lies_about_its_members_is_refused(tmp_path: Path, place: int) -> None:
    content = bytearray(saved(WEIGHTS))
    entry = content.index(b"PK\x01\x02")
    content[entry + place : entry + place + 4] = struct.pack("<I", 0x7FFFFFF0)
    (tmp_path / "x.pt").write_bytes(bytes(content))
    assert refused(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 50]}},
        {"x": {"dtype": "NONE", "shape": [1], "data_offsets": [0, 4]}},
    ],
)
def test_safetensors_that_lie_are_refused(tmp_path: Path, header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    assert refused(path) == "the file is truncated or damaged."
