"""Decoders whose libraries may not be installed."""

from __future__ import annotations

import pytest

from alpro.datasets.decoding import Decoder, make_decoder
from alpro.errors import InputError


def installed_decoder(name: str) -> Decoder:
    """The decoder of this name; without its library the test is skipped."""
    try:
        return make_decoder(name)
    except InputError as error:
        pytest.skip(str(error))
