"""Commands, flags, files and links in the pages for users exist."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from alpro.commands.main import main
from alpro.configs.command_line import parse_flags
from alpro.configs.family import with_family
from alpro.configs.loading import load_config
from alpro.families.registry import DEFAULT_FAMILY, FAMILIES
from alpro.tasks.pretraining.config import PretrainConfig, PrompterConfig
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FOLDERS_OF_PAGES = (".", "data", "ext", "ext/bert-base-uncased", "output")
PAGES = sorted(
    [page for folder in FOLDERS_OF_PAGES for page in (ROOT / folder).glob("*.md")]
    + list((ROOT / "docs").rglob("*.md"))
)
MAX_README_BYTES = 8192  # one screen
MAX_PAGE_LINES = 400

TASKS: dict[str, Any] = {
    "run_video_retrieval": RetrievalConfig,
    "run_video_qa": QaConfig,
    "run_pretrain_contrastive_only": PrompterConfig,
    "run_pretrain_sparse": PretrainConfig,
}

CODE_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OWN_PATH = re.compile(r"`((?:src|run_scripts|env|config_release|tests|docs|\.ci)/[\w./-]*)`")
VARIABLE = re.compile(r"`([A-Z]+_[A-Z_]+|HOSTS|STEP)`")
ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=")
EXAMPLE = "my_"  # begins the names of files that a reader is told to make
CHECKERS = ("mkdocs", "pip", "pytest")
READERS_OWN_TOOLS = ("cd", "cp", "git", "jupyter", "pre-commit", "source", "tensorboard")
SHELL_FILES = [path for folder in ("run_scripts", "env") for path in (ROOT / folder).glob("*.sh")]


def commands() -> Iterator[tuple[str, str]]:
    """Page and command line of everything that is shown to be typed."""
    for page in PAGES:
        for language, block in CODE_BLOCK.findall(page.read_text(encoding="utf-8")):
            if language == "bash":
                lines = block.replace("\\\n", " ").splitlines()
                yield from ((page.name, line) for line in lines if shlex.split(line, comments=True))


def anchors(page: Path) -> set[str]:
    """Names that links can point to, made from headings as GitHub makes them."""
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_fits_on_one_screen_and_pages_are_short() -> None:
    assert len(README.read_bytes()) <= MAX_README_BYTES
    lengths = {page: len(page.read_text(encoding="utf-8").splitlines()) for page in PAGES}
    assert [page for page, length in lengths.items() if length > MAX_PAGE_LINES] == []


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_own_files_that_are_named_exist(page: Path) -> None:
    named = OWN_PATH.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if EXAMPLE not in path and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_environment_variables_are_read(page: Path) -> None:
    readers = [*SHELL_FILES, ROOT / "tests/shared_data.py"]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in readers)
    named = VARIABLE.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not re.search(rf"\b{name}\b", sources)] == []


@pytest.mark.parametrize(("page", "command"), list(commands()))
def test_commands_can_be_typed(page: str, command: str) -> None:
    del page  # only names the test
    words = shlex.split(command, comments=True)
    while found := ASSIGNMENT.match(words[0]):
        assert any(found[1] in path.read_text(encoding="utf-8") for path in SHELL_FILES), found[1]
        del words[0]
    if words[0] == "horovodrun":
        assert words[1] == "-np"
        del words[: words.index("python")]
    if words[0] == "torchrun":
        first = next(i for i, word in enumerate(words) if word.endswith(".py"))
        words[:first] = ["python"]
    program, *arguments = words
    if program == "bash":
        check_script(*arguments)
    elif program == "python" and arguments[0] == "-m":
        check_module(*arguments[1:])
    elif program == "python":
        check_script(*arguments)
    elif program == "alpro":
        check_command(*arguments)
    else:
        assert program in READERS_OWN_TOOLS


def check_script(script: str, *arguments: str) -> None:
    """A script of the repository and flags that it takes."""
    source = (ROOT / script).read_text(encoding="utf-8")
    if script.startswith("env/"):
        assert all(argument in source for argument in arguments)
        return
    # The config that a script names says of which family it is.
    family = next((name for name in FAMILIES if f"{name}/" in source), DEFAULT_FAMILY)
    for name, config_class in TASKS.items():
        if name in (source if script.endswith(".sh") else script):
            flags = parse_flags(with_family(config_class, family), arguments)
            assert flags.problems == []
            if flags.config is not None and EXAMPLE not in flags.config:
                assert (ROOT / flags.config).is_file()


def check_module(module: str, *_arguments: str) -> None:
    """A module of the repository or of the tools that check it."""
    assert module in CHECKERS or (ROOT / f"{module.replace('.', '/')}.py").is_file()


def check_command(name: str, *arguments: str) -> None:
    """A command and flags that it takes."""
    words = [name, *(word for word in arguments[:1] if not word.startswith("-"))]
    flags = {word for word in arguments if word.startswith("--")}
    assert flags <= flags_in_help(*words) | flags_in_help(name)


@cache
def flags_in_help(*words: str) -> set[str]:
    """Flags that the help of a command, or of one of its own subcommands, lists."""
    with redirect_stdout(io.StringIO()) as shown, redirect_stderr(shown), suppress(SystemExit):
        main([*words, "--help"])
    return set(re.findall(r"--\w+", shown.getvalue()))


def test_example_configs_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = [block for page in PAGES for block in CODE_BLOCK.findall(page.read_text("utf-8"))]
    examples = [text for language, text in blocks if language == "json" and "_datasets" in text]
    assert examples
    for number, text in enumerate(examples):
        path = tmp_path / f"{number}.json"
        path.write_text(text, encoding="utf-8")
        config_class = class_of(json.loads(text))
        resolved = load_config(config_class, ["--config", str(path), "--output_dir", "unused"])
        assert resolved.warnings == []


def class_of(values: dict[str, Any]) -> Any:
    """The class of an example, told by keys that only one has."""
    if values.get("use_mlm"):
        return PretrainConfig
    if "resize_size" in values:
        return PrompterConfig
    return QaConfig if "ans2label_path" in values else RetrievalConfig
