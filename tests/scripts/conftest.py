from pathlib import Path

import pytest

from tests.scripts.stubs import Stubs


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path)
