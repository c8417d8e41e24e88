"""The language of the code: words that are kept out, and how docstrings begin."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from itertools import pairwise
from pathlib import Path

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))

FORBIDDEN_NAMES = {"told", "tells", "tell", "afresh", "anew", "lest", "among", "found"}
FORBIDDEN_WORDS = re.compile(r"\b(told|tells|afresh|anew|lest|learnt|spoilt|mend(s|ed|ing)?)\b")
QUESTION = re.compile(r"(What|How|Which|Where|Who)\b")


def names_of(path: Path) -> list[str]:
    """Names that a file uses, but for ``file.tell``; in f-strings unseen before Python 3.12."""
    with io.StringIO(path.read_text(encoding="utf-8")) as lines:
        tokens = [token for token in tokenize.generate_tokens(lines.readline) if token.string]
    pairs = pairwise(tokens)
    names = [(one.string, two) for one, two in pairs if two.type == tokenize.NAME]
    return [name.string for before, name in names if (before, name.string) != (".", "tell")]


def docstrings_of(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (ast.get_docstring(node) for node in nodes if isinstance(node, kinds))
    return [text for text in texts if text]


def test_names_are_terms_of_the_field() -> None:
    offenders = [
        f"{path}: {name}" for path in SOURCES for name in names_of(path) if name in FORBIDDEN_NAMES
    ]
    assert offenders == []


def test_docstrings_have_no_old_words_and_begin_with_a_verb_or_a_noun() -> None:
    offenders = [
        f"{path}: {text.splitlines()[0]}"
        for path in SOURCES
        for text in docstrings_of(path)
        if FORBIDDEN_WORDS.search(text) or QUESTION.match(text)
    ]
    assert offenders == []


def test_offenders_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""What is told."""\nfound = file.tell()\n')
    assert [name for name in names_of(path) if name in FORBIDDEN_NAMES] == ["found"]
    (text,) = docstrings_of(path)
    assert QUESTION.match(text)
    assert FORBIDDEN_WORDS.search(text)
