"""Decoding in the tests' own process, which spares the start of isolated ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from alpro.isolation.process import IsolatedProcess


@pytest.fixture
def decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one reader at a time: the reading that goes on is the process's."""

    def call(_self: IsolatedProcess, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(IsolatedProcess, "call", call)
