"""Searches find what brute force finds, as moments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from alpro.errors import InputError
from alpro.installation import has_package
from alpro.search.index import FileState, Index
from alpro.search.index_writer import IndexWriter
from alpro.search.moments import SHARE_OF_PEAK
from alpro.search.nearest import build_nearest
from alpro.search.searcher import Example, Query, Searcher, SearchResult
from tests.datasets.clips import write_image
from tests.search.fakes import fake_model, settings, vector_of, write_levels

DAY = 86_400 * 10**9  # nanoseconds


def write_index(
    folder: Path, files: Mapping[str, Sequence[float]], *, days: Sequence[int] = ()
) -> Index:
    """Write an index of files whose windows have these levels; stride 0.5 s, window 1 s."""
    with IndexWriter(folder, settings()) as writer:
        for number, (name, levels) in enumerate(files.items()):
            day = days[number] if days else 0
            file = writer.begin(folder / name, FileState(number, day * DAY), b"")
            vectors = np.stack([vector_of(level) for level in levels])
            writer.add(file, vectors, duration=0.5 * (len(levels) + 1))
            writer.finish(file)
    return Index(folder)


def search(index: Index, *texts: str, **options: object) -> SearchResult:
    return Searcher(index, fake_model).search(Query(texts=texts, **options))  # type: ignore[arg-type]


def spans(found: SearchResult) -> list[tuple[str, float, float]]:
    return [(one.file.path.name, one.start, one.end) for one in found.moments]


def test_neighbouring_windows_are_one_moment(tmp_path: Path) -> None:
    with write_index(
        tmp_path, {"a.mp4": [1, 1, 7, 7, 7, 1, 7, 1], "b.mp4": [7, 1, 1], "c.mp4": [15, 16]}
    ) as index:
        found = search(index, "level 7", min_score=0.5)
        # a.mp4 has windows 2 to 4, then 6, b.mp4 has window 0.
        assert spans(found) == [("a.mp4", 1.0, 3.0), ("a.mp4", 3.0, 4.0), ("b.mp4", 0.0, 1.0)]
        assert [one.score for one in found.moments] == pytest.approx([1, 1, 1], abs=1e-3)
        assert (found.num_windows, found.num_files) == (13, 3)
        assert found.floor == pytest.approx(vector_of(1) @ vector_of(7), abs=1e-3)


def test_the_best_windows_are_those_of_brute_force(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = {f"{i}.mp4": rng.uniform(0, 19, rng.integers(1, 9)).tolist() for i in range(60)}
    with write_index(tmp_path, files) as index:
        found = search(index, "level 9", top=1000)
        windows, vectors = index.windows(), index.vectors()
        scores = vectors[windows.row].astype(np.float32) @ vector_of(9)
        places = zip(windows.file.tolist(), windows.number.tolist(), strict=True)
        left = dict(zip(places, scores.tolist(), strict=True))
        floor = float(np.median(scores))
    # Take the best window with its neighbours, while they are alike, again and again.
    expected = []
    while left:
        (file, peak), best = max(left.items(), key=lambda one: (one[1], [-part for part in one[0]]))
        first = last = peak
        least = floor + SHARE_OF_PEAK * (best - floor)
        while left.get((file, first - 1), -2) >= least:
            first -= 1
        while left.get((file, last + 1), -2) >= least:
            last += 1
        for number in range(first - 1, last + 2):
            left.pop((file, number), None)
        expected.append((file, first * 0.5, last * 0.5 + 1.0))
    assert [(one.file.id, one.start, one.end) for one in found.moments] == expected


def test_a_long_file_that_matches_everywhere_hides_no_others(tmp_path: Path) -> None:
    files = {
        "still.mp4": [9.0] * 900,
        "noise.mp4": [1.0] * 999,
        **{f"{i}.mp4": [9.0 + i / 10] for i in range(1, 6)},
    }
    with write_index(tmp_path, files) as index:
        names = [name for name, _, _ in spans(search(index, "level 9", top=5))]
    assert names == ["still.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4"]


def test_equal_scores_are_in_the_order_of_files_and_times(tmp_path: Path) -> None:
    with write_index(tmp_path, {name: [5, 15] * 250 for name in ("a.mp4", "b.mp4")}) as index:
        for top in (1, 3, 300):  # of which the best of 32, 96 and all windows are looked at
            moments = search(index, "level 5", top=top).moments
            expected = [("a.mp4", i) for i in range(250)] + [("b.mp4", i) for i in range(250)]
            assert [(one.file.path.name, one.start) for one in moments] == expected[:top]


def test_pages_continue_each_other(tmp_path: Path) -> None:
    with write_index(tmp_path, {f"{i}.mp4": [i, i] for i in range(9)}) as index:
        whole = search(index, "level 4", top=9)
        pages = [search(index, "level 4", top=3, skip=skip).moments for skip in (0, 3, 6)]
        assert [one for page in pages for one in page] == whole.moments


def test_filters_leave_files_out(tmp_path: Path) -> None:
    files = {"x/a.mp4": [7, 7], "x/b.mp4": [7] * 9, "xy/c.mp4": [7, 7]}
    with write_index(tmp_path, files, days=[10, 20, 30]) as index:

        def names(**options: object) -> set[str]:
            return {name for name, _, _ in spans(search(index, "level 7", **options))}

        assert names(folder=tmp_path / "x") == {"a.mp4", "b.mp4"}
        assert names(since=15 * 86_400) == {"b.mp4", "c.mp4"}
        assert names(until=15 * 86_400) == {"a.mp4"}
        assert names(min_seconds=3) == {"b.mp4"}
        assert names(max_seconds=3) == {"a.mp4", "c.mp4"}
        assert names(folder=tmp_path / "nowhere") == set()
        assert search(index, "level 7", folder=tmp_path / "x").num_windows == 11


def test_negatives_and_several_texts(tmp_path: Path) -> None:
    with write_index(tmp_path, {"a.mp4": [4], "b.mp4": [5], "c.mp4": [6]}) as index:
        assert spans(search(index, "level 4", "level 6"))[0][0] == "b.mp4"
        assert spans(search(index, "level 5", negatives=("level 6",)))[0][0] == "a.mp4"


def test_examples_are_parts_of_clips_and_pictures(tmp_path: Path) -> None:
    clip = write_levels(tmp_path / "clip#t=1.mp4", [2, 2, 2, 2, 11, 11, 11, 11])
    picture = write_image(tmp_path / "photo.jpg", 5)
    with write_index(tmp_path / "index", {"a.mp4": [2], "b.mp4": [11], "c.mp4": [5]}) as index:

        def first(text: str) -> str:
            return spans(search(index, examples=(Example.of(text),)))[0][0]

        assert first(f"{clip}#t=0,1") == "a.mp4"
        assert first(f"{clip}#t=2.5") == "b.mp4"
        assert first(f"{clip}#t=,1.5") == "a.mp4"
        assert Example.of(str(clip)) == Example(clip)
        assert Example.of(str(picture)) == Example(picture)
    with pytest.raises(InputError, match="no-such.mp4: there is no such file to search by"):
        Example.of("no-such.mp4#t=1,2")
    for part in ("7,3", "3,3", ",0"):
        with pytest.raises(InputError, match=f"t={part}: the part ends before it begins"):
            Example.of(f"{clip}#t={part}")


def test_the_fusion_encoder_ranks_again(tmp_path: Path) -> None:
    dark = write_levels(tmp_path / "dark.mp4", [4, 4])
    bright = write_levels(tmp_path / "bright.mp4", [6, 6])
    with IndexWriter(tmp_path / "index", settings()) as writer:
        for path, level in ((dark, 4.9), (bright, 5.3)):
            file = writer.begin(path, FileState(0, 0), b"")
            writer.add(file, vector_of(level)[None], duration=1.0)
            writer.finish(file)
    with Index(tmp_path / "index") as index:
        assert [name for name, _, _ in spans(search(index, "level 5"))] == [
            "dark.mp4",
            "bright.mp4",
        ]
        again = search(index, "level 5", rerank=2)
        assert [name for name, _, _ in spans(again)] == ["bright.mp4", "dark.mp4"]
        assert again.moments[0].match == pytest.approx(0.3, abs=0.02)
        only_first = search(index, "level 5", rerank=1)
        assert [name for name, _, _ in spans(only_first)] == ["dark.mp4", "bright.mp4"]
        assert only_first.moments[1].match is None
        dark.unlink()
        with pytest.raises(InputError, match="dark.mp4: .*Index again"):
            search(index, "level 5", rerank=2)


def test_what_others_write_is_found(tmp_path: Path) -> None:
    with write_index(tmp_path, {"a.mp4": [3]}) as index:
        searcher = Searcher(index, fake_model)
        query = Query(texts=("level 8",))
        assert searcher.search(query).num_windows == 1
        write_index(tmp_path, {"b.mp4": [8]}).close()
        assert spans(searcher.search(query))[0][0] == "b.mp4"


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    with write_index(tmp_path, {}) as index:
        found = search(index, "level 1")
        assert (found.moments, found.floor, found.num_windows, found.num_files) == ([], 0, 0, 0)


def test_a_query_must_say_something(tmp_path: Path) -> None:
    with write_index(tmp_path, {"a.mp4": [1]}) as index:
        for texts in ((), ("  ",)):
            with pytest.raises(InputError, match="nothing to search for"):
                search(index, *texts)


def test_another_model_is_refused(tmp_path: Path) -> None:
    with write_index(tmp_path, {"a.mp4": [1]}) as index:
        searcher = Searcher(index, lambda: fake_model("other"))
        with pytest.raises(InputError, match="other weights or settings"):
            searcher.search(Query(texts=("level 1",)))


@pytest.mark.skipif(not has_package("usearch"), reason="usearch is not installed")
def test_approximate_searches_find_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = {f"{i}.mp4": rng.uniform(0, 19, 30).tolist() for i in range(40)}
    with write_index(tmp_path, files) as index:
        exact = search(index, "level 9", top=5)
        path = build_nearest(index)
        searcher, built = Searcher(index, fake_model), build_nearest(index)
        assert built == path
        found = searcher.search(Query(texts=("level 9",), top=5))
        assert spans(found) == spans(exact)
        assert found.floor == pytest.approx(exact.floor, abs=0.05)
        # It is not used for another state of the index, nor where files are left out.
        write_index(tmp_path, {"new.mp4": [9.0]}).close()
        assert spans(searcher.search(Query(texts=("level 9",), top=1)))[0][0] in {
            "new.mp4",
            spans(exact)[0][0],
        }
        assert not (tmp_path / f"nearest-{index.generation()}.usearch").exists()


@pytest.mark.parametrize("name", ["index.sqlite3", "vectors.f16"])
def test_a_damaged_index_is_refused(tmp_path: Path, name: str) -> None:
    write_index(tmp_path, {"a.mp4": [1, 2, 3]}).close()
    os.truncate(tmp_path / name, 20)
    with pytest.raises(InputError, match=f"{name}.*Delete .* and index again"):
        search(Index(tmp_path), "level 1")
