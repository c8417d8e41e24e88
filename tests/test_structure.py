"""The shape of the code: who imports whom, and what files may be called."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_LINES = 320
BACKENDS = ("horovod", "torch.distributed")
SCRIPT_FOLDERS = ("tasks", "pretrain")
OPTIONAL = (
    *("av", "decord", "HanTa", "horovod", "lmdb", "pandas", "PIL", "pyarrow", "tensorboard"),
    *("torch.utils.tensorboard", "torchcodec", "torchvision", "ujson"),
)
IMPORTED_LATE = ("src.distributed.horovod",)  # modules that are themselves imported when used

# Who may import whom. Modules of `tasks` and `pretrain` are either entry scripts (`run_*`) or Task
# classes. `src` itself (the version) and the modules beside it are open to all.
LEAVES = {"datasets", "modeling", "losses", "metrics", "optimization"}
OPEN = {
    *("src", "console", "errors", "file_kinds", "launchers", "optional_packages", "quoting"),
    "user_files",
}
ALLOWED: dict[str, set[str]] = {
    **{module: OPEN for module in OPEN},
    "configs": set(),
    **{leaf: set() for leaf in LEAVES},
    "distributed": set(),
    "training": LEAVES | {"distributed"},
    "evaluation": LEAVES | {"distributed", "training"},
    "Task classes": LEAVES | {"distributed", "training", "evaluation"},
    "build": LEAVES | {"configs", "distributed", "training", "evaluation", "Task classes"},
    "entry scripts": LEAVES | {"configs", "build", "distributed", "training", "evaluation"},
    "tools": LEAVES | {"configs", "build", "training", "evaluation"},
}


def layer_of(module: str) -> str:
    """Layer of a module such as ``src.training.trainer``."""
    _, *parts = module.split(".")
    if not parts:
        return "src"
    if parts[0] in SCRIPT_FOLDERS and len(parts) > 1:
        return "entry scripts" if parts[1].startswith("run_") else "Task classes"
    return "Task classes" if parts[0] in SCRIPT_FOLDERS else parts[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            name = node.module or ""
            yield name
            # `from src.tasks import run_x` imports a module, `from src import __version__` none.
            for alias in node.names:
                if (ROOT / name.replace(".", "/") / f"{alias.name}.py").exists():
                    yield f"{name}.{alias.name}"


def matches(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = layer_of(module_of(path))
    allowed = ALLOWED[own] | OPEN
    if own != "entry scripts":  # one script does not import another
        allowed.add(own)
    layers = {layer_of(name): name for name in imported_by(path) if matches(name, ("src",))}
    assert {layer: name for layer, name in layers.items() if layer not in allowed} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_distributed_knows_a_backend(path: Path) -> None:
    used = [name for name in imported_by(path) if matches(name, BACKENDS)]
    assert used == [] or layer_of(module_of(path)) == "distributed"


def test_the_rules_can_fail() -> None:
    here = set(imported_by(Path(__file__)))
    assert {"ast", "importlib.util", "pytest"} <= here
    assert layer_of("src.tasks.run_video_retrieval") == "entry scripts"
    assert layer_of("src.tasks.retrieval_task") == "Task classes"
    assert layer_of("src.build.data") == "build"
    assert matches("horovod.torch", BACKENDS)
    assert not matches("torch.distributions", BACKENDS)
    assert "src.distributed" in {name.rpartition(".")[0] for name in map(module_of, SOURCES)}


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert [path for path in SOURCES if "utils" in path.stem or "utils" in path.parts] == []


@pytest.mark.parametrize(
    "path",
    [path for folder in ("src", "tests") for path in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize(
    "path",
    [path for folder in SCRIPT_FOLDERS for path in sorted((ROOT / "src" / folder).glob("*"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_scripts_shadow_no_module(path: Path) -> None:
    """Their folder comes first on ``sys.path`` when one of them is run."""
    if path.stem.startswith("__"):
        return
    assert path.stem not in sys.stdlib_module_names
    assert find_spec(path.stem) is None


def test_reading_a_config_loads_nothing_heavy() -> None:
    """``--help`` and errors in a config shall come at once."""
    heavy = ("torch", "transformers", "numpy", *OPTIONAL)
    code = (
        "import sys, src.configs.loading, src.configs.schema, src.tasks.run_video_retrieval\n"
        f"print(*[name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def imported_when_loaded(path: Path) -> Iterator[str]:
    """Modules that a file imports as soon as it is imported itself."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)


def test_imports_in_functions_are_late(tmp_path: Path) -> None:
    lines = (
        "import av.video\nif TYPE_CHECKING:\n    import lmdb\nelse:\n    from horovod import torch",
        "try:\n    from torch.utils import tensorboard\nexcept ImportError:\n    pass",
        "def late():\n    import decord",
    )
    (tmp_path / "module.py").write_text("\n".join(lines))
    assert set(imported_when_loaded(tmp_path / "module.py")) == {
        *("av.video", "horovod.torch", "torch.utils.tensorboard")
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_optional_packages_are_imported_only_when_used(path: Path) -> None:
    loaded = list(imported_when_loaded(path))
    if layer_of(module_of(path)) != "tools" and module_of(path) not in IMPORTED_LATE:
        assert [name for name in loaded if matches(name, OPTIONAL)] == []
        assert [name for name in loaded if name in IMPORTED_LATE] == []
