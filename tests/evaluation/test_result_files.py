from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpro.training.atomic_io import write_json, write_records

NUMBERS = (0.0, -0.0, 1.0, 1 / 3, 0.9999999999999999, 1e-5, 5e-324, 1.7e308, 1e16, 1e22, -12.5)


@pytest.fixture
def records() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    numbers = [*NUMBERS, *(rng.random(500) ** 30).tolist(), *rng.normal(size=500).tolist()]
    return [
        {"vid_id": f'a/{row} "é\\\u2028', "txt_id": row, "score": number, "sim": -number}
        for row, number in enumerate(numbers)
    ]


@pytest.mark.parametrize("installed", [True, False])
def test_records_are_written_exactly_with_and_without_ujson(
    tmp_path: Path, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if installed:
        pytest.importorskip("ujson")
    else:
        monkeypatch.setitem(sys.modules, "ujson", None)
    write_records(tmp_path / "records.json", records)
    write_json(tmp_path / "expected.json", records)
    text, expected = ((tmp_path / name).read_text() for name in ("records.json", "expected.json"))
    assert json.loads(text) == json.loads(expected) == records
    # ujson writes 1e-5 where the standard module writes 1e-05.
    assert text.replace("e-0", "e-") == expected.replace("e-0", "e-")
