"""The shape of the code: who imports whom, what files may be called, how large it may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from operator import le
from pathlib import Path

from alpro.configs.fields import fields_of
from alpro.families.registry import FAMILIES, family_config, load_family
from alpro.tasks.registry import TASKS

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
SOURCES = sorted(SRC.rglob("*.py"))
SCRIPT_FOLDERS = ("tasks", "pretrain")
SCRIPTS = [path for folder in SCRIPT_FOLDERS for path in sorted((SRC / folder).glob("*.py"))]

MAX_LINES = 320  # of a file
# Sizes that may only be lowered.
MAX_FRAMEWORK_LINES = 21_670  # of the package without commands, families and inference
MAX_FAMILY_LINES = {"alpro": 1_826, "clip_vip": 1_673}  # of a family's folder
MAX_LINES_OF_OTHER_FAMILIES = 700
MAX_INFERENCE_LINES = 817  # of `alpro.load` and what belongs to it
MAX_SEARCH_LINES = 2_490  # of indexing and search, with the windows of videos that they read
MAX_REACHABLE_FILES = 110  # from any entry script

BACKENDS = ("horovod", "torch.distributed")
OPTIONAL = (
    *("av", "decord", "HanTa", "horovod", "lmdb", "pandas", "PIL", "pyarrow", "tensorboard"),
    *("torch.utils.tensorboard", "torchcodec", "torchvision", "ujson"),
)
IMPORTED_LATE = ("alpro.distributed.horovod",)  # modules that are themselves imported when used

# Folders of the package, with `losses`, a module, and those whose modules each may import. Other
# modules beside them, such as `errors`, are open to all.
LEAVES = {"datasets", "isolation", "losses", "modeling", "optimization"}
MIDDLE = LEAVES | {"distributed", "evaluation", "training"}
ALLOWED: dict[str, set[str]] = {
    "configs": set(),
    "isolation": set(),
    "distributed": set(),
    "losses": set(),
    "modeling": set(),
    "optimization": set(),
    "datasets": {"isolation"},
    "training": LEAVES | {"distributed"},
    "evaluation": LEAVES | {"distributed", "training"},
    "family contract": MIDDLE | {"configs"},
    "experiment": MIDDLE | {"configs", "family contract"},
    "tasks": MIDDLE | {"configs", "experiment"},
    "families": MIDDLE | {"configs", "experiment", "family contract", "tasks"},
    "runs": MIDDLE | {"configs", "experiment", "family contract"},
    "entry scripts": MIDDLE | {"configs", "experiment", "runs", "tasks"},
    "inference": MIDDLE | {"configs", "experiment", "family contract", "tasks"},
    "search": {"datasets", "inference", "isolation", "training"},
    "commands": MIDDLE
    | {"configs", "experiment", "family contract", "inference", "runs", "search", "tasks"},
}
LIST_OF_FAMILIES = "alpro.families.registry"  # names alone: open to all
LIST_OF_TASKS = "alpro.tasks.registry"  # configs alone: open to all
CONTRACT = "alpro.families.family"
PROGRAMS = ("alpro.__main__",)
TERMS = {"gradient_checkpointing"}  # keys of a family that are terms of the field


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str | None:
    """Return the layer of a module such as ``alpro.training.trainer``; None beside the folders."""
    package, *parts = module.split(".")
    if package in SCRIPT_FOLDERS:
        return "entry scripts"
    if matches(module, (LIST_OF_FAMILIES, LIST_OF_TASKS)):
        return None
    if matches(module, (CONTRACT,)):
        return "family contract"
    return parts[0] if parts and parts[0] in ALLOWED else None


@cache
def imported_by(path: Path) -> tuple[str, ...]:
    """Full names of the modules that a file imports, anywhere in it."""
    return tuple(_imported_by(path))


def _imported_by(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            name = node.module or ""
            yield name
            # `from alpro.configs import help` imports a module, `from alpro import x` may not.
            for alias in node.names:
                if (SRC / name.replace(".", "/") / f"{alias.name}.py").exists():
                    yield f"{name}.{alias.name}"


def matches(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_imports_point_one_way() -> None:
    offenders = []
    for path in SOURCES:
        own = layer_of(module_of(path))
        imported = {name: layer_of(name) for name in imported_by(path) if matches(name, ("alpro",))}
        allowed = ALLOWED[own] | {own} if own is not None else set()
        offenders += [
            f"{module_of(path)} imports {name}"
            for name, layer in imported.items()
            if layer is not None
            and layer not in allowed
            and module_of(path) not in (*PROGRAMS, LIST_OF_FAMILIES, LIST_OF_TASKS)
        ]
    assert offenders == []


def names_of_family(name: str) -> re.Pattern[str]:
    """Pattern of a family's classes, modules, files and own keys of more than one word."""
    config = family_config(name)
    common = {key for task in TASKS.values() for key in fields_of(task)} | TERMS
    keys = {key for key in config.options.__annotations__ if "_" in key and key not in common}
    camel = name.title().replace("_", "")
    return re.compile(
        rf"\b{camel}[A-Z]\w*|\b{name}_|families\.{name}\b|[\"']{name}[\"']"
        rf"|\b({'|'.join(sorted(keys | config.architecture.keys()))})\b"
    )


def test_no_family_is_known_outside_its_folder() -> None:
    families = SRC / "alpro" / "families"
    framework = [path for path in SOURCES if families not in path.parents]
    offenders = [
        f"{path.relative_to(SRC)}: {match.group()}"
        for path in framework
        for name in FAMILIES
        for match in names_of_family(name).finditer(path.read_text(encoding="utf-8"))
    ]
    assert offenders == []
    assert all("if family ==" not in path.read_text(encoding="utf-8") for path in SOURCES)


def test_entry_scripts_are_imported_by_nothing_of_the_package() -> None:
    offenders = [
        f"{module_of(path)} imports {name}"
        for path in SOURCES
        for name in imported_by(path)
        if matches(name, SCRIPT_FOLDERS)
    ]
    assert offenders == []


def test_only_distributed_knows_a_backend() -> None:
    offenders = [
        f"{module_of(path)} imports {name}"
        for path in SOURCES
        for name in imported_by(path)
        if matches(name, BACKENDS) and layer_of(module_of(path)) != "distributed"
    ]
    assert offenders == []


def test_the_rules_can_fail() -> None:
    here = set(imported_by(Path(__file__)))
    assert {"ast", "importlib.util"} <= here
    assert layer_of("tasks.run_video_retrieval") == "entry scripts"
    assert layer_of("alpro.families.alpro.model") == "families"
    assert layer_of("alpro.errors") is None
    assert matches("horovod.torch", BACKENDS)
    assert not matches("torch.distributions", BACKENDS)
    folders = {path.parent.name for path in (SRC / "alpro").glob("*/__init__.py")}
    assert folders == set(ALLOWED) - {"entry scripts", "family contract", "losses"}


def test_folders_of_scripts_hold_nothing_else() -> None:
    assert [path for path in SCRIPTS if not path.stem.startswith("run_")] == []
    # Their folder comes first on `sys.path` when one of them is run.
    assert [path for path in SCRIPTS if path.stem in sys.stdlib_module_names] == []
    assert [path for path in SCRIPTS if find_spec(path.stem)] == []


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert [path for path in SOURCES if "utils" in path.stem or "utils" in path.parts] == []


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_files_can_be_read_in_one_sitting() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    assert [f"{path}: {lines_of(path)}" for path in files if lines_of(path) > MAX_LINES] == []


def test_the_framework_does_not_grow() -> None:
    package = SRC / "alpro"
    inference, search = ({*(package / name).rglob("*.py")} for name in ("inference", "search"))
    search.add(package / "datasets/decoding/windows.py")
    others = {package / "commands", package / "families"}
    framework = [path for path in SOURCES if not {*path.parents} & others]
    sizes = [
        sum(map(lines_of, part)) for part in ({*framework} - inference - search, inference, search)
    ]
    budgets = [MAX_FRAMEWORK_LINES, MAX_INFERENCE_LINES, MAX_SEARCH_LINES]
    assert all(map(le, sizes, budgets)), sizes


def test_a_family_is_small() -> None:
    sizes = {
        name: sum(lines_of(path) for path in (SRC / "alpro" / "families" / name).rglob("*.py"))
        for name in FAMILIES
    }
    budget = {name: MAX_FAMILY_LINES.get(name, MAX_LINES_OF_OTHER_FAMILIES) for name in sizes}
    assert {name: size for name, size in sizes.items() if size > budget[name]} == {}


def reachable_from(script: Path, family: str) -> set[str]:
    """Modules of the project that a script leads to, imports in functions included."""
    (config_class,) = (one for one in TASKS.values() if Path(one.SCRIPT).stem == script.stem)
    by_name = [f"{FAMILIES[family]}.{part}" for part in ("config", "family")]
    tasks = load_family(family).tasks
    by_name += [tasks[config_class.TASK]] if config_class.TASK in tasks else []
    paths = {module_of(path): path for path in SOURCES}
    found: set[str] = set()
    pending = [module_of(script)]
    while pending:
        module = pending.pop()
        if module in paths and module not in found:
            found.add(module)
            pending += imported_by(paths[module])
        if module == LIST_OF_FAMILIES:  # imports them by name
            pending += by_name
    return found


def test_few_files_lead_from_an_entry_script_to_its_end() -> None:
    counts = {
        (path.stem, family): len(reachable_from(path, family))
        for path in SCRIPTS
        for family in FAMILIES
    }
    assert {key: count for key, count in counts.items() if count > MAX_REACHABLE_FILES} == {}
    assert min(counts.values()) > 50  # else they are not followed


def test_reading_a_config_loads_nothing_heavy() -> None:
    """``--help`` and errors in a config shall come at once."""
    heavy = ("torch", "transformers", "numpy", *OPTIONAL)
    code = (
        "import sys, alpro.configs.loading, alpro.tasks.registry, alpro.commands.main\n"
        "import tasks.run_video_retrieval\n"
        f"print(*[name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True, check=True
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


def test_optional_packages_are_imported_only_when_used() -> None:
    offenders = [
        f"{module_of(path)} imports {name}"
        for path in SOURCES
        if layer_of(module_of(path)) != "commands" and module_of(path) not in IMPORTED_LATE
        for name in imported_when_loaded(path)
        if matches(name, OPTIONAL) or name in IMPORTED_LATE
    ]
    assert offenders == []
