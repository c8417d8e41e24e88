from __future__ import annotations

import logging
from pathlib import Path

import pytest

from alpro.errors import InputError
from alpro.tasks.pretraining.annotations import read_entities
from tests.shared_data import shared_data

SHARED = shared_data()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "entities.txt"


def test_the_first_words_of_the_first_lines_are_read(path: Path) -> None:
    path.write_text("man 2077\nwoman 824\ncar\ngirl 664 seen\n", encoding="utf-8")
    assert read_entities(path, num_entities=4) == ("man", "woman", "car", "girl")
    assert read_entities(path, num_entities=2) == ("man", "woman")


def test_how_lines_end_and_blank_ones_do_not_matter(path: Path) -> None:
    path.write_bytes("\ufeffman 7\r\n\r\ncafé\t5\r\n   \n t-shirt 3".encode())
    assert read_entities(path, num_entities=3) == ("man", "café", "t-shirt")


def test_too_few_entities_are_an_error(path: Path) -> None:
    path.write_text("man 3\n\nwoman 2\n")
    with pytest.raises(InputError, match=r"entities\.txt: 2 entities, but num_entities is 3") as at:
        read_entities(path, num_entities=3)
    assert "set num_entities to 2 at most" in str(at.value)
    assert "extract-entities" in str(at.value)


def test_a_duplicate_entity_is_kept_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("man 3\nwoman 2\n\nman 1\n")
    with caplog.at_level(logging.WARNING):
        assert read_entities(path, num_entities=2) == ("man", "woman")
        assert caplog.text == ""
        assert read_entities(path, num_entities=3) == ("man", "woman", "man")
    (message,) = caplog.messages
    assert message.startswith(f"entity_file_path: {path}: entities listed more than once (1) share")
    assert message.endswith(": 'man' (lines 1, 4)")


def test_a_warning_names_a_few(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("".join(f"{word}\n" for word in "abcdefg") * 2)
    with caplog.at_level(logging.WARNING):
        assert read_entities(path, num_entities=14) == tuple("abcdefg" * 2)
    assert "more than once (7)" in caplog.text
    assert "'e' (lines 5, 12), ..." in caplog.text


def test_only_spaces_and_tabs_end_a_word(path: Path) -> None:
    path.write_text("ice\u00a0cream 3\ncar\t2\n", encoding="utf-8")
    assert read_entities(path, num_entities=2) == ("ice\u00a0cream", "car")


def test_a_file_that_cannot_be_read_is_named(path: Path) -> None:
    with pytest.raises(InputError, match=r"entities\.txt: there is no such file"):
        read_entities(path, num_entities=1)
    path.write_bytes(b"caf\xe9 3\n")
    with pytest.raises(InputError, match=r"entities\.txt: not UTF-8 text"):
        read_entities(path, num_entities=1)


@pytest.mark.skipif(SHARED is None, reason="needs the shared entity list")
def test_a_published_list_is_read_as_it_is() -> None:
    assert SHARED is not None
    path = SHARED / "real/annotations/unigrams_msrvtt10k_nltk.txt"
    entities = read_entities(path, num_entities=1000)
    assert len(entities) == 1000
    assert entities[:3] == ("man", "woman", "girl")
