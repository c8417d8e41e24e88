"""Questions of the installer about what an environment holds; run by that environment's Python.

`python env/installed.py torch-to-keep` prints the version of a PyTorch to be kept, if any;
`python env/installed.py horovod-fits` ends with exit code 0 if Horovod is there and fits PyTorch.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Answer the question named by the only argument."""
    (question,) = sys.argv[1:]
    if question == "torch-to-keep":
        try:
            installed = version("torch")
        except PackageNotFoundError:
            return 0
        sys.stdout.write(torch_to_keep(installed))
        return 0
    if question == "horovod-fits":
        misfit = horovod_misfit()
        sys.stdout.write(misfit + "\n")
        return int(misfit != "")
    raise SystemExit(f"unknown question {question!r}")


def torch_to_keep(installed: str) -> str:
    """An installed PyTorch's release, if in setup.py's range and not the pinned one, or ""."""
    release = installed.split("+")[0]
    if release == pinned_version("torch"):
        return ""
    ranges = re.findall(r'"torch>=([\d.]+),<(\d+)"', (ROOT / "setup.py").read_text())
    ((oldest, next_major),) = ranges
    in_range = _numbers(oldest) <= _numbers(release) < _numbers(next_major)
    return release if in_range else ""


def pinned_version(package: str) -> str:
    """The exact version that the requirement files ask for."""
    for path in sorted((ROOT / "env").glob("requirements*.txt")):
        if found := re.search(rf"^{package}==(\S+)", path.read_text(), re.MULTILINE):
            return found[1]
    raise SystemExit(f"no requirement file pins {package}")


def horovod_misfit() -> str:
    """Why the installed Horovod cannot be used with the installed PyTorch, or ""."""
    try:
        import horovod.torch
        import torch
    except ImportError as error:
        return f"{error}"
    installed, pinned = version("horovod"), pinned_version("horovod")
    if installed != pinned:
        return f"Horovod {installed} is installed, {pinned} is asked for"
    metadata = json.loads(Path(horovod.__file__).with_name("metadata.json").read_text())
    if metadata["pytorch"] != torch.__version__:
        return f"Horovod was built for PyTorch {metadata['pytorch']}, not {torch.__version__}"
    return ""


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)[:3]]


if __name__ == "__main__":
    sys.exit(main())
