"""CSV as spreadsheets and people write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpro.datasets.annotations import CaptionRow, read_captions
from alpro.errors import InputError
from alpro.tasks.pretraining.annotations import CaptionedItem, read_captioned_videos
from alpro.tasks.question_answering.annotations import QuestionRow, read_questions

_ROWS = [CaptionRow("a red, square", "v0"), CaptionRow("b", "v1")]
_BODY = "v0;a red, square\nv1;b\n"


@pytest.mark.parametrize(
    "text",
    [
        f"clip_name;caption\n{_BODY}",
        f"clip_name|caption\n{_BODY.replace(';', '|')}",
        f"video\tcaption\n{_BODY.replace(';', chr(9))}",
        f"sep=;\nclip_name;caption\n{_BODY}",
        f'"sep=;"\nclip_name;caption\n{_BODY}',
        f"sep=:\nclip_name:caption\n{_BODY.replace(';', ':')}",
        f'\n \n# made by hand\n"Clip Name" ; "CAPTION"\n{_BODY}',
        f"#clip_name;caption\n{_BODY}",
        f"videoid;name;page_dir;duration\n{_BODY.replace(chr(10), ';x;PT1S' + chr(10))}",
        f"clip_name;caption;;\n{_BODY.replace(chr(10), ';;' + chr(10))};;;\n;\n",
        f"clip_name;caption\n{_BODY.replace(chr(10), '; ;' + chr(10))}",
        f"clip_name;caption\r{_BODY.replace(chr(10), chr(13))}",
        f"clip_name;caption\r\n\r\n{_BODY}",
        'clip_name, caption\nv0, "a red, square"\nv1, b\n',
    ],
    ids=repr,
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_dialects_say_the_same(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding=encoding, newline="")
    assert read_captions(path) == _ROWS
    path = path.rename(tmp_path / "a.tsv")
    assert read_captions(path) == _ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "v0,a dog\n",
            "a.csv:1: no column 'caption' (or text or name) and no 'clip_name' (or c",
        ),
        ("v0,a dog\n", "videoid or video) in the header ['v0', 'a dog'], separated by commas"),
        ("v0,a dog\n", "if the file has no header, write one"),
        ("caption\nx\n", "or video) in the header ['caption'], in which nothing is separated"),
        ("clip_name::caption\nv::x\n", "in which nothing is separated by commas, semicolons, tabs"),
        ("caption,caption,clip_name\nx,y,v\n", "2 columns are called 'caption' in the header"),
        ("Caption;clip_name;caption\nx;v;y\n", "2 columns are called 'caption'"),
        ("sentence,clip_name\nx,v\n", "rename 'sentence' to 'caption' if it is that"),
        ("captoin,youtube_id\nx,v\n", "rename 'captoin' to 'caption' if it is that; rename"),
        ("clip_name;caption\nv0,x\n", "a.csv:2: 1 field, but the header names 2; separate the fie"),
        ("clip_name;caption\nv0,x\n", "with semicolons, and leave none out"),
        ("clip_name|caption\nv0|x|y\n", "put captions that contain vertical bars in quotes"),
        ("clip_name,caption,\nv0,x,y\n", "a.csv:2: 3 fields, but the header names 2"),
        ('clip_name,caption\nv0,x\nv1,"a dog\nv2,y\n', "a.csv:3: not CSV (unexpected end of data)"),
        ('clip_name,caption\nv0,"a dog" runs\n', "a.csv:2: not CSV (',' expected after '\"')"),
        ('clip_name,caption\nv0,"' + "x\n" * 70_000, "a.csv:2: not CSV (field larger than field"),
        ('{"caption": "x", "clip_name": "v"}\n', "JSON, not CSV; let the name of the file end in"),
        ("\n \n", "a.csv: no caption in this file"),
        ("clip_name,caption\nv0,x\n" + "v0,y\n" * 300 + "v1,x\0\n", "line 303 holds a zero char"),
        ("x" * 200_000, "no column 'caption'"),
    ],
)
def test_messages_name_the_fault(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_captions(path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 700


def test_cells_of_other_columns_may_be_alike_or_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,x,,Video ID,TEXT,txt_len\n1,,,v,a dog,\n,,,w,a cat,90\n")
    table = read_captioned_videos(path)
    assert table.items == [CaptionedItem("v", ("a dog",), "video")]
    assert table.num_left_out == 1


def test_questions_come_in_dialects_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Question;Video;Answer;Answer Type\nwhat, now?;v.mp4;dog;\nwho?;w;a;who\n")
    assert read_questions(path) == [
        QuestionRow("what, now?", "v", "dog", "other"),
        QuestionRow("who?", "w", "a", "who"),
    ]
