"""Prove that an environment can run the project, and print what was found as a table.

    python env/verify_install.py [--horovod-reason TEXT] [--require-horovod]

Every check runs in a process of its own, so that one that crashes is a row of the table and not the
end of it. Exit code 1 if something that is required is missing or fails, else 0.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CHECK_SECONDS = 180  # a slow disk takes its time over torch's first import
PARALLEL_CHECKS = 2  # each loads torch or a decoder; more gain nothing on two cores
INSTALL = "bash env/install_pkg.sh --force"

CLIP_FRAMES, CLIP_SIDE = 8, 64
GREY_TOLERANCE = 6  # of 255, what a lossy codec may change in a plain grey frame


def main() -> int:
    """Run one check, or all of them for the table."""
    parser = argparse.ArgumentParser(description="Prove an installation and print a table.")
    parser.add_argument("--check", choices=CHECKS, help="run this check alone, in this process")
    parser.add_argument("--horovod-reason", default="", help="why Horovod could not be built")
    parser.add_argument("--require-horovod", action="store_true", help="fail where it is missing")
    arguments = parser.parse_args()
    if arguments.check:
        sys.stdout.write(CHECKS[arguments.check]() + "\n")
        return 0
    with ThreadPoolExecutor(PARALLEL_CHECKS) as pool:
        rows = list(pool.map(_row, PACKAGES))
    for row in rows:
        if row.package == "horovod":
            row.required = arguments.require_horovod
            if row.state != "OK" and arguments.horovod_reason:
                row.note = arguments.horovod_reason
    _print_table(rows)
    return int(any(row.required and row.state != "OK" for row in rows))


@dataclass
class Row:
    """One line of the table."""

    package: str
    version: str
    state: str  # OK, MISSING, FAILED
    note: str  # what was proven, or the remedy
    required: bool = True


def _row(package: str) -> Row:
    """Run a package's check in a process of its own."""
    try:
        found = version(package)
    except PackageNotFoundError:
        if package == "decord" and platform.machine() != "x86_64":
            note = "has no wheel for this machine; PyAV reads the videos"
            return Row(package, "-", "MISSING", note, required=False)
        return Row(package, "-", "MISSING", f"remedy: {INSTALL}")
    command = [sys.executable, __file__, "--check", package]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CHECK_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return Row(package, found, "FAILED", f"no answer within {CHECK_SECONDS} s: {INSTALL}")
    if done.returncode == 0:
        return Row(package, found, "OK", done.stdout.strip().splitlines()[-1])
    sys.stderr.write(f"--- {package}, exit code {done.returncode}\n{done.stdout}{done.stderr}\n")
    said = [f"exit code {done.returncode}", *done.stdout.splitlines(), *done.stderr.splitlines()]
    last = next(line for line in reversed(said) if line.strip())
    return Row(package, found, "FAILED", f"{last}; remedy: {INSTALL}")


def _print_table(rows: list[Row]) -> None:
    python = Row("python", platform.python_version(), "OK", sys.prefix)
    cells = [(row.package, row.version, row.state, row.note) for row in [python, *rows]]
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    for line in cells:
        left = "  ".join(text.ljust(width) for text, width in zip(line[:3], widths, strict=True))
        sys.stdout.write(f"  {left}  {line[3]}\n")


# The checks: each returns what it has proven, and raises where it cannot.


def _check_torch() -> str:
    import torch

    product = torch.ones(2, 3) @ torch.ones(3, 2)
    assert product.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    built = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "built without CUDA"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    seen = f"{count} x {torch.cuda.get_device_name(0)}" if count else "no GPU seen: runs on the CPU"
    return f"{built}, {seen}"


def _check_torchvision() -> str:
    import torch
    from torchvision.transforms import v2

    resized = v2.functional.resize(torch.zeros(3, 8, 8, dtype=torch.uint8), [4, 4])
    assert resized.shape == (3, 4, 4)
    return "transforms.v2 imported and used"


def _check_transformers() -> str:
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, vocab_size=20)
    parameters = sum(parameter.numel() for parameter in BertModel(config).parameters())
    assert parameters > 0
    return "BertModel imported and built"


def _write_clip(path: Path) -> list[int]:
    """Encode a clip of plain grey frames, dark to bright, and return their grey levels."""
    import av
    import numpy as np

    levels = [20 + 25 * index for index in range(CLIP_FRAMES)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = CLIP_SIDE
        stream.pix_fmt = "yuv420p"
        for level in levels:
            grey = np.full((CLIP_SIDE, CLIP_SIDE, 3), level, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return levels


def _compare(means: list[float], levels: list[int]) -> str:
    assert len(means) == len(levels), f"{len(means)} of {len(levels)} frames decoded"
    worst = max(abs(mean - level) for mean, level in zip(means, levels, strict=True))
    assert worst <= GREY_TOLERANCE, f"decoded frames differ by {worst:.1f} grey levels"
    return f"{len(levels)} frames of an h264 clip decoded, brightness right"


def _check_av() -> str:
    import av

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        levels = _write_clip(clip)
        with av.open(str(clip)) as container:
            frames = container.decode(video=0)
            means = [float(frame.to_ndarray(format="rgb24").mean()) for frame in frames]
    return _compare(means, levels)


def _check_decord() -> str:
    import decord

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        levels = _write_clip(clip)
        reader = decord.VideoReader(str(clip), num_threads=1)
        means = [float(reader[index].asnumpy().mean()) for index in range(len(reader))]
    return _compare(means, levels)


def _check_lmdb() -> str:
    import lmdb

    with tempfile.TemporaryDirectory() as folder, lmdb.open(folder) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"key", b"value")
        with environment.begin() as transaction:
            assert transaction.get(b"key") == b"value"
    return "a value written and read back"


def _check_pillow() -> str:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        for name in ("picture.jpg", "picture.png"):
            path = Path(folder, name)
            Image.new("RGB", (CLIP_SIDE, CLIP_SIDE), (200, 30, 30)).save(path)
            with Image.open(path) as image:
                red, *_ = image.getpixel((0, 0))
            assert abs(red - 200) <= GREY_TOLERANCE, f"{name}: red is {red}, not 200"
    return "a JPEG and a PNG picture written and read back"


def _check_pyarrow() -> str:
    import pyarrow
    from pyarrow import parquet

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.parquet")
        parquet.write_table(pyarrow.table({"text": ["a dog runs"]}), path)
        assert parquet.read_table(path).column("text").to_pylist() == ["a dog runs"]
    return "a Parquet table written and read back"


def _check_hanta() -> str:
    from HanTa.HanoverTagger import HanoverTagger

    tagged = HanoverTagger("morphmodel_en.pgz").tag_sent(["two", "dogs", "run"])
    assert tagged[1][1:] == ("dog", "NN2"), f"tagged {tagged}"
    return "the nouns of an English sentence found"


def _check_horovod() -> str:
    """Start this file's worker in two processes."""
    launcher = Path(sys.executable).with_name("horovodrun")
    command = [str(launcher), "-np", "2", sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(
        [*command, "--check", "horovod-worker"],
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS - 10,
        cwd=tempfile.gettempdir(),
    )
    workers = [line for line in done.stdout.splitlines() if "allreduce right" in line]
    if done.returncode != 0 or len(workers) != 2:
        sys.stderr.write(f"{done.stdout}{done.stderr}\n")
        raise SystemExit(f"horovodrun failed with exit code {done.returncode}")
    return workers[0].split(">:", 1)[-1].strip()


def _check_horovod_worker() -> str:
    import horovod.torch as hvd
    import torch

    hvd.init()
    assert hvd.size() == 2, f"{hvd.size()} processes instead of 2"
    devices = ["cpu"]
    if torch.cuda.device_count() >= hvd.size() and hvd.nccl_built():
        devices.append(f"cuda:{hvd.local_rank()}")
    for device in devices:
        mine = torch.tensor([1.0, 10.0], device=device) * (hvd.rank() + 1)
        total = hvd.allreduce(mine, op=hvd.Sum, name=f"proof {device}")
        assert total.tolist() == [3.0, 30.0], f"allreduce gave {total.tolist()}"
    nccl = "NCCL for GPUs built in" if hvd.nccl_built() else "built without NCCL"
    used = " and NCCL" if len(devices) > 1 else ""
    return f"2 processes, allreduce right (Gloo{used}), {nccl}"


def _imports(module: str) -> Callable[[], str]:
    def check() -> str:
        importlib.import_module(module)
        return "imported"

    return check


def _runs(program: str) -> Callable[[], str]:
    def check() -> str:
        path = Path(sys.executable).with_name(program)
        subprocess.run([str(path), "--version"], check=True, capture_output=True)
        return "runs"

    return check


CHECKS: dict[str, Callable[[], str]] = {
    "torch": _check_torch,
    "torchvision": _check_torchvision,
    "transformers": _check_transformers,
    "numpy": _imports("numpy"),
    "av": _check_av,
    "decord": _check_decord,
    "lmdb": _check_lmdb,
    "ujson": _imports("ujson"),
    "pillow": _check_pillow,
    "fontpkg-noto-sans": _imports("fontpkg_noto_sans"),
    "tqdm": _imports("tqdm"),
    "jinja2": _imports("jinja2"),
    "tensorboard": _imports("torch.utils.tensorboard"),
    "pyarrow": _check_pyarrow,
    "hanta": _check_hanta,
    "starlette": _imports("starlette"),
    "uvicorn": _imports("uvicorn"),
    "usearch": _imports("usearch.index"),
    "horovod": _check_horovod,
    "ipykernel": _imports("ipykernel"),
    "nbclient": _imports("nbclient"),
    "nbformat": _imports("nbformat"),
    "pandas": _imports("pandas"),
    "playwright": _imports("playwright.sync_api"),
    "axe-playwright-python": _imports("axe_playwright_python"),
    "httpx": _imports("httpx"),
    "pytest": _imports("pytest"),
    "pytest-xdist": _imports("xdist"),
    "ruff": _runs("ruff"),
    "mypy": _runs("mypy"),
    "mkdocs-material": _imports("material"),
    "mkdocstrings": _imports("mkdocstrings"),
    "horovod-worker": _check_horovod_worker,
}
PACKAGES = [name for name in CHECKS if name != "horovod-worker"]


if __name__ == "__main__":
    sys.exit(main())
