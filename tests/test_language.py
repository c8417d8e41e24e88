"""The language of the code: words that are kept out, how docstrings begin; counts only fall."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))

FORBIDDEN_NAMES = {"told", "tells", "tell", "afresh", "anew", "lest", "among", "found"}
FORBIDDEN_WORDS = re.compile(r"\b(told|tells|afresh|anew|lest|learnt|spoilt|mend(s|ed|ing)?)\b")
QUESTION = re.compile(r"(What|How|Which|Where|Who)\b")

# May only be lowered, to 0 in the end.
MAX_FORBIDDEN_NAMES = 77
MAX_FORBIDDEN_WORDS = 14
MAX_QUESTIONS = 75


def names_of(path: Path) -> list[str]:
    """Names that a file uses; in f-strings they go unseen before Python 3.12."""
    with io.StringIO(path.read_text(encoding="utf-8")) as lines:
        tokens = tokenize.generate_tokens(lines.readline)
        return [token.string for token in tokens if token.type == tokenize.NAME]


def docstrings_of(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (ast.get_docstring(node) for node in nodes if isinstance(node, kinds))
    return [text for text in texts if text]


def test_home_made_names_become_fewer() -> None:
    used = [name for path in SOURCES for name in names_of(path) if name in FORBIDDEN_NAMES]
    assert len(used) <= MAX_FORBIDDEN_NAMES


def test_old_words_in_docstrings_become_fewer() -> None:
    texts = [text for path in SOURCES for text in docstrings_of(path)]
    assert sum(len(FORBIDDEN_WORDS.findall(text)) for text in texts) <= MAX_FORBIDDEN_WORDS


def test_docstrings_that_begin_with_a_question_become_fewer() -> None:
    texts = [text for path in SOURCES for text in docstrings_of(path)]
    assert sum(bool(QUESTION.match(text)) for text in texts) <= MAX_QUESTIONS


def test_the_counts_can_rise(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""What is told."""\nfound = 1\n')
    assert [name in FORBIDDEN_NAMES for name in names_of(path)] == [True]
    (text,) = docstrings_of(path)
    assert QUESTION.match(text)
    assert FORBIDDEN_WORDS.search(text)
