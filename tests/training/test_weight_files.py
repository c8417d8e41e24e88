"""Files and folders of weights, shards, and files that stand where weights should."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import logging
import lzma
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from alpro.errors import InputError
from alpro.training.inert_pickle import Foreign
from alpro.training.state_dicts import names_in, read_state, read_weights
from alpro.training.stored_tensors import StoredTensor
from alpro.training.weight_files import find_weights, open_weights
from tests.training.weight_makers import WEIGHTS, refused, saved, zipped


def test_names_tell_the_places_of_values() -> None:
    content = {"a": {"b.c": 1, "d": [1]}, "e": {}}
    assert names_in(content) == {"a/b.c": 1, "a/d": [1], "e": {}}
    assert names_in((content, 3)) == {"0/a/b.c": 1, "0/a/d": [1], "0/e": {}, "1": 3}


def test_a_module_that_was_saved_whole_has_its_names(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    module[0].register_buffer("left_out", torch.zeros(1), persistent=False)
    (tmp_path / "x.pt").write_bytes(saved({"net": module}))
    with open_weights(tmp_path / "x.pt") as content:
        names = names_in(content)
        assert isinstance(content["net"], Foreign)
    assert set(names) == {f"net/{name}" for name in module.state_dict()}
    assert all(isinstance(value, StoredTensor) for value in names.values())


def test_a_torchscript_archive_is_read_without_running_it(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2)))
    torch.jit.save(torch.jit.trace(module.eval(), torch.zeros(1, 2)), tmp_path / "x.pt")
    state = read_state(tmp_path / "x.pt", ["0", "1"])
    assert state.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert torch.equal(state[name], value)


def write_shards(folder: Path, *, ending: str = ".safetensors") -> list[Path]:
    """Two shards of a model, with three tensors each."""
    paths = [folder / f"model-0000{i}-of-00002{ending}" for i in (1, 2)]
    for number, path in enumerate(paths):
        part = {f"{number}.{i}": torch.full((2,), float(10 * number + i)) for i in range(3)}
        save_file(part, path) if ending == ".safetensors" else torch.save(part, path)
    return paths


def write_index(folder: Path, weight_map: Any, *, ending: str = ".safetensors") -> Path:
    path = folder / f"model{ending}.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


@pytest.mark.parametrize("named", ["index", "shard", "folder"])
@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_all_shards_are_read(tmp_path: Path, ending: str, named: str) -> None:
    shards = write_shards(tmp_path, ending=ending)
    listed = {f"{number}.{i}": shards[number].name for number in (0, 1) for i in range(3)}
    index = write_index(tmp_path, listed, ending=ending)
    path = {"index": index, "shard": shards[1], "folder": tmp_path}[named]
    found = read_weights(find_weights(path, key="k", source="s"))
    expected = {f"{n}.{i}": [10.0 * n + i] * 2 for n in (0, 1) for i in range(3)}
    assert {name: value.tolist() for name, value in found.items()} == expected


def test_shards_without_an_index_are_read_together(tmp_path: Path) -> None:
    write_shards(tmp_path)
    assert len(read_weights(find_weights(tmp_path, key="k", source="s"))) == 6


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    shards[1].unlink()
    with pytest.raises(InputError, match="model-00002-of-00002.safetensors: there is no such"):
        read_weights(shards[0])
    index = write_index(tmp_path, {"0.0": shards[0].name, "1.0": shards[1].name})
    with pytest.raises(InputError, match="model-00002-of-00002.safetensors: there is no such"):
        read_weights(index)


@pytest.mark.parametrize(
    ("weight_map", "told"),
    [
        ({}, "lists no tensors"),
        (None, "lists no tensors"),
        ([], "lists no tensors"),
        ({"0.0": "../x.safetensors"}, "is no file name"),
        ({"0.0": "/etc/passwd"}, "is no file name"),
        ({"0.0": ".."}, "is no file name"),
        ({"0.0": ""}, "is no file name"),
        ({"0.0": 3}, "is no file name"),
        ({"9.9": "model-00001-of-00002.safetensors"}, "lists 9.9 in .*, which lacks it"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, weight_map: Any, told: str) -> None:
    write_shards(tmp_path)
    with pytest.raises(InputError, match=told):
        read_weights(write_index(tmp_path, weight_map))


def test_a_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    first, second = write_shards(tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="another shard of the model holds 0.0, too"):
        read_weights(first)


def test_a_folder_gives_weights_and_not_what_lies_beside_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("optimizer.pt", "training_args.bin", "rng_state.pth", "scheduler.pt"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="no weights at"):
        find_weights(tmp_path, key="k", source="s")
    for name in ("TimeSformer_8x32.pyth", "b.pt"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.INFO):
        assert find_weights(tmp_path, key="k", source="s").name == "TimeSformer_8x32.pyth"
    assert f"{tmp_path}: taking TimeSformer_8x32.pyth; not read: b.pt" in caplog.text


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
