"""Exceptions that mean something to the user, their words, and values quoted in them."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from alpro.errors import InputError, ScarcityError, known_error, listed, shortened, shown


def known(number: int, *paths: str | None) -> Exception | None:
    path, second = (*paths, None, None)[:2]
    return known_error(OSError(number, os.strerror(number), path, None, second))


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (known(errno.EACCES, "a/b"), InputError, "a/b: Permission denied"),
        (known(errno.ENAMETOOLONG, "a"), InputError, "a: File name too long"),
        (known(errno.EROFS, "a"), InputError, "a: Read-only file system"),
        (known(errno.EXDEV, "a", "b"), InputError, "a -> b: Invalid cross-device link"),
        (known(errno.EAGAIN, "a"), InputError, "a: Resource temporarily unavailable"),
        (known(errno.EMFILE), ScarcityError, "Too many open files. Raise the limit (ulimit -n"),
        (known(errno.EMFILE, "a"), ScarcityError, "a: Too many open files. Raise the limit"),
        (known(errno.ENFILE), ScarcityError, "fs.file-max"),
        (known(errno.EAGAIN), ScarcityError, "--pids-limit"),
        (known(errno.ENOSPC, "a"), ScarcityError, "a: No space left on device. Free some space"),
        (known(errno.ENOMEM), ScarcityError, "out of memory ([Errno 12] Cannot allocate memory)"),
        (known_error(MemoryError()), ScarcityError, "out of memory. Lower train_batch_size"),
        (known_error(RuntimeError("can't start new thread")), ScarcityError, "--pids-limit"),
        (
            known_error(RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: 9 b")),
            ScarcityError,
            "num_frm, crop_img_size",
        ),
        (
            known_error(type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.\nb")),
            ScarcityError,
            "out of memory (CUDA out of memory). Lower train_batch_size",
        ),
        (
            known_error(ImportError("Read this!\nlib.so: failed to map segment")),
            ScarcityError,
            "out of memory (lib.so: failed to map segment)",
        ),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    error: Exception | None, kind: type[Exception], told: str
) -> None:
    assert type(error) is kind
    assert told in str(error)


@pytest.mark.parametrize(
    "error",
    [
        *(TypeError("x"), KeyError("x"), RecursionError("x"), RuntimeError("x"), ValueError("x")),
        *(OSError("without a number"), OSError(errno.EBADF, "Bad file descriptor")),
    ],
)
def test_mistakes_of_the_program_are_none(error: Exception) -> None:
    assert known_error(error) is None


def test_values_are_quoted_in_short() -> None:
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested] * 10
    for value in (nested, "x" * 10_000, list(range(10_000)), 10**5000, object()):
        assert len(shown(value)) < 1000


def test_texts_are_short_and_printable() -> None:
    assert shortened("ein Bär") == "ein Bär"
    assert shortened("\x1b[31m\ud800") == "\\x1b[31m\\ud800"
    assert shortened("a" * 11, most=10) == "aaaaaaa..."


def test_the_first_of_several_names_are_listed() -> None:
    assert listed(["a", "b"], most=2) == "a, b"
    assert listed(["a", "b", "c"], most=2) == "a, b, ..."
    assert listed([]) == ""
