"""Files that stand where weights should, named for what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from alpro.training.weight_files import read_weights
from tests.training.weight_makers import WEIGHTS, refused, saved, zipped


def tarred(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    return buffer.getvalue()


def numpy_file(write: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer, np.zeros(2))
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
OTHER_FILES = [
    (POINTER, "git lfs pull"),
    (b"<!DOCTYPE html><html>Virus scan warning</html>", "a web page"),
    (b"\xef\xbb\xbf\n<HTML>", "a web page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied", "AccessDenied"),
    (b'{"error": "Repository not found"}', "a JSON text: .*Repository not found"),
    (b"Entry not found", "a text: 'Entry not found'"),
    (gzip.compress(b"x"), "gzip -d"),
    (bz2.compress(b"x"), "bzip2 -d"),
    (lzma.compress(b"x"), "xz -d"),
    (zipped({"readme.txt": b"", "model.pt": b""}), r"a ZIP archive that holds model\.pt"),
    (zipped({}), "a ZIP archive that holds nothing"),
    (tarred("run/model.pth"), r"a tar archive that holds run/model\.pth"),
    (numpy_file(np.savez), "NumPy"),
    (numpy_file(np.save), "NumPy"),
    (torchscript(), r"TorchScript .*torch\.jit\.load"),
    (pickle.dumps(WEIGHTS), "a plain pickle"),
    (b"GGUF\3\0\0\0" + bytes(40), "GGUF"),
    (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    (b"\x08\x07\x12\x07pytorch\x1a\x052.0", "ONNX"),
    (bytes(4) + b"ftypisom" + bytes(20), "a video"),
    (bytes(5000), "zeros"),
    (b"\x80", "something else"),
    (b"\xff\xfe\x00\x01" * 9, "it begins with"),
]


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize(("content", "told"), OTHER_FILES, ids=[told for _, told in OTHER_FILES])
def test_other_files_are_named_for_what_they_are(
    tmp_path: Path, content: bytes, told: str, ending: str
) -> None:
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    message = refused(path)
    if told in ("something else", "it begins with") and ending == ".safetensors":
        assert message == "the file is truncated or damaged."
    else:
        assert message.startswith("not a file of PyTorch weights but ")
        assert re.search(told, message)


def test_a_part_of_a_tensorflow_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bert_model.ckpt.data-00000-of-00001"
    path.write_bytes(bytes(range(256)))
    assert "TensorFlow" in refused(path)


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".bin", ""])
@pytest.mark.parametrize("kind", ["archive", "legacy", "safetensors"])
def test_the_content_tells_the_format(tmp_path: Path, kind: str, ending: str) -> None:
    path = tmp_path / f"weights{ending}"
    made = save(WEIGHTS) if kind == "safetensors" else saved(WEIGHTS, legacy=kind == "legacy")
    path.write_bytes(made)
    found = read_weights(path)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("kind", ["archive", "legacy", "safetensors"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pt"
    made = save(WEIGHTS) if kind == "safetensors" else saved(WEIGHTS, legacy=kind == "legacy")
    for size in range(0, len(made), 7):
        path.write_bytes(made[:size])
        assert refused(path)


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device", "no such file", "a link"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pt"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path = Path("/dev/zero")
    elif kind == "a link":
        path.symlink_to("nowhere")
    assert kind.replace("file", "checkpoint file") in refused(path)
