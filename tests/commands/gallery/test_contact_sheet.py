import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alpro.commands.demo.encoding import encode_video
from alpro.commands.gallery.cards import Text
from alpro.commands.gallery.contact_sheet import SIDE, Hit, main, query_card, read_queries
from alpro.datasets.annotations import CaptionRow
from alpro.errors import USER_ERROR_EXIT_CODE

ROWS = [CaptionRow("a red square grows", "a"), CaptionRow("a red square shrinks", "b")]
RESULTS = [
    {"vid_id": "a", "txt_id": 0, "score": 0.25, "sim": 3.0},
    {"vid_id": "b", "txt_id": 0, "score": 0.75, "sim": 1.0},
    {"vid_id": "a", "txt_id": 1, "score": 0.5, "sim": 1.0},
    {"vid_id": "b", "txt_id": 1, "score": 0.5, "sim": 2.0},
]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "output/results_test/step_best_1_mean/results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(RESULTS))
    return path


def test_hits_are_sorted_by_score_then_similarity(results: Path) -> None:
    first, second = read_queries(results, rows=ROWS)
    assert (first[0], second[0]) == tuple(ROWS)
    assert [hit.video_id for hit in first[1]] == ["b", "a"]
    assert [hit.video_id for hit in second[1]] == ["b", "a"]


def test_only_the_own_clip_is_green(results: Path) -> None:
    first, second = read_queries(results, rows=ROWS)
    frames = [Image.new("RGB", (SIDE, SIDE))]
    card = query_card(*first, lambda _: frames, top_k=2)
    assert card.title == (Text("“a red square grows”", "plain"), Text("own clip at rank 2"))
    assert [strip.outline for strip in card.strips] == ["wrong", "correct"]
    assert [strip.caption[0] for strip in card.strips] == [
        *(Text("1.  b", "pale"), Text("2.  a", "correct"))
    ]
    assert [text.text for text in card.strips[1].caption[1:]] == ["match 0.25", "similarity 3.0"]
    card = query_card(*second, lambda _: frames, top_k=1)
    assert card.title[1] == Text("own clip at rank 1", "correct")
    assert len(card.strips) == 1
    card = query_card(ROWS[0], first[1][:1], lambda _: frames, top_k=3)
    assert card.title[1] == Text("own clip not scored")


def test_results_of_vtc_alone_show_no_matching_probability() -> None:
    card = query_card(ROWS[0], [Hit("a", 0.625, 0.625)], lambda _: [], top_k=1)
    assert [text.text for text in card.strips[0].caption] == ["1.  a", "similarity 0.6"]


def test_a_picture_is_written(results: Path, tmp_path: Path) -> None:
    videos, txt = tmp_path / "videos", tmp_path / "test.jsonl"
    videos.mkdir()
    frames = np.zeros((16, 64, 64, 3), np.uint8)
    encode_video(frames, path=videos / "a.mp4")
    (videos / "b.mp4").write_bytes(b"no video")
    rows = ({"caption": row.caption, "clip_name": row.video_id} for row in ROWS)
    txt.write_text("".join(json.dumps(row) + "\n" for row in rows))
    picture = tmp_path / "docs/demo.png"
    flags = ["--output_dir", str(results.parents[2]), "--num_queries", "9"]
    given = ["--videos", str(videos), "--txt", str(txt), "--picture", str(picture)]
    assert main([*flags, *given]) == 0
    with Image.open(picture) as image:
        assert image.width > image.height > 0
    # What was evaluated stands in the evaluation's own record.
    protocol = {"videos": str(videos), "annotations": str(txt)}
    results.with_name("scores.json").write_text(json.dumps({"protocol": protocol}))
    assert main(flags) == 0
    assert (results.parents[2] / "contact_sheet.png").read_bytes() == picture.read_bytes()
    page = tmp_path / "sheet.HTML"
    assert main([*flags, "--picture", str(page)]) == 0
    assert page.read_text().count("<article") == 2


def test_captions_that_have_changed_since_the_evaluation_are_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, txt, former = tmp_path / "videos", tmp_path / "test.jsonl", tmp_path / "former.jsonl"
    videos.mkdir()
    for row in ROWS:
        (videos / f"{row.video_id}.mp4").write_bytes(b"no video")
    lines = [json.dumps({"caption": row.caption, "clip_name": row.video_id}) for row in ROWS]
    former.write_text("\n".join(lines))
    protocol = {"annotations": str(txt), "videos": str(videos)}
    protocol["annotations_sha256"] = hashlib.sha256(former.read_bytes()).hexdigest()
    results.with_name("scores.json").write_text(json.dumps({"protocol": protocol}))
    txt.write_text("\n".join(reversed(lines)))
    flags = ["--results_dir", str(results.parent), "--picture", str(tmp_path / "sheet.png")]
    assert main(flags) == USER_ERROR_EXIT_CODE
    error = capsys.readouterr().err
    assert f"{txt} has changed since this evaluation (SHA-256 in " in error
    assert "evaluate again, or name the former file with --txt" in error
    assert main([*flags, "--txt", str(txt)]) == USER_ERROR_EXIT_CODE
    assert f"--txt: {txt} is not the file of this evaluation" in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()
    assert main([*flags, "--txt", str(former)]) == 0


def test_without_a_record_of_the_evaluation_its_files_must_be_given(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output_dir", str(results.parents[2])]) == USER_ERROR_EXIT_CODE
    assert "give --txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(("[", "no list"), ("[1]", "no list"), ("[]", "belong"), ('[{"txt_id": 0}]', "no list")),
        ('[{"vid_id": "a", "txt_id": 7, "score": 0.5, "sim": 1.0}]', "belong"),
    ],
)
def test_bad_results_are_named(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    results.write_text(text)
    txt = tmp_path / "test.jsonl"
    txt.write_text(json.dumps({"caption": "a red square grows", "clip_name": "a"}) + "\n")
    flags = ["--results_dir", str(results.parent), "--videos", str(tmp_path), "--txt", str(txt)]
    assert main(flags) == USER_ERROR_EXIT_CODE
    error = capsys.readouterr().err
    assert message in error
    assert str(results) in error


def test_missing_results_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output_dir", str(tmp_path)]) == USER_ERROR_EXIT_CODE
    assert str(tmp_path) in capsys.readouterr().err
