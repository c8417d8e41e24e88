from __future__ import annotations

from pathlib import Path

import pytest

from alpro.datasets.video_datasets import UnreadableVideo
from alpro.errors import InputError
from alpro.evaluation.evaluation_set import readable_rows
from tests.factories import make_retrieval_set, rows_of


def test_rows_are_found_by_their_videos(tmp_path: Path) -> None:
    data = make_retrieval_set(tmp_path, rows_of(3, captions_per_video=2))
    assert data.rows_by_position() == [[0, 3], [1, 4], [2, 5]]


def test_rows_of_unreadable_videos_are_left_out(tmp_path: Path) -> None:
    data = make_retrieval_set(tmp_path, rows_of(3, captions_per_video=2))
    lost = [UnreadableVideo(name, "gone") for name in data.video_ids]
    assert readable_rows(data, []) == [0, 1, 2, 3, 4, 5]
    assert readable_rows(data, lost[1:2]) == [0, 2, 3, 5]
    with pytest.raises(InputError, match="tiny: none of the 3 videos can be read"):
        readable_rows(data, lost)
