from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from pathlib import Path

import pytest

from alpro.commands.convert.conversion import Conversion, Published, differences
from alpro.datasets.annotations import read_captions
from tests.commands.official_files import convert, msrvtt_info, read_jsonl, write_json, write_lines
from tests.shared_data import shared_data

SHARED = shared_data()
TRAIN, VAL, TEST = ["video0", "video1"], ["video2"], ["video3", "video4", "video5"]
ALL = {
    **dict.fromkeys(TRAIN, "train"),
    **dict.fromkeys(VAL, "validate"),
    **dict.fromkeys(TEST, "test"),
}


def clips(path: Path) -> list[str]:
    return [row["clip_name"] for row in read_jsonl(path)]


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """MSR-VTT as CLIP4Clip shares it, tested on one video."""
    folder = tmp_path / "msrvtt_data"
    write_json(folder / "MSRVTT_data.json", msrvtt_info(ALL))
    header = "key,vid_key,video_id,sentence"
    write_lines(
        folder / "MSRVTT_JSFUSION_test.csv", [header, 'ret0,msr4,video4,"a man, and a dog"']
    )
    return folder


def test_msrvtt_full_split_of_the_publishers_files(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    tested = msrvtt_info(dict.fromkeys(TEST, "test"))
    trained = msrvtt_info({video: own for video, own in ALL.items() if own != "test"})
    write_json(source / "test_videodatainfo.json", tested)
    write_json(source / "train_val" / "train_val_videodatainfo.json", trained)
    assert convert("msrvtt", source, output, "--split", "full") == 0
    assert read_jsonl(output / "train.jsonl")[:3] == [
        {"caption": "video0 says 0", "clip_name": "video0"},
        {"caption": "video0 says 1", "clip_name": "video0"},
        {"caption": "video1 says 0", "clip_name": "video1"},
    ]
    assert clips(output / "val.jsonl") == ["video2"] * 2
    assert sorted(set(clips(output / "test.jsonl"))) == TEST
    assert len(read_captions(output / "test.jsonl")) == 6


@pytest.mark.parametrize(
    ("split", "trained", "validated"),
    [
        ("7k", ["video0", "video1", "video2"], ["video3", "video5"]),
        ("9k", ["video0", "video1", "video2", "video3", "video5"], []),
        ("1k-A", ["video0", "video1", "video2", "video3", "video5"], []),
    ],
)
def test_msrvtt_splits_tested_on_pairs(
    merged: Path, tmp_path: Path, split: str, trained: list[str], validated: list[str]
) -> None:
    output = tmp_path / "out"
    assert convert("msrvtt", merged, output, "--split", split) == 0
    assert clips(output / "train.jsonl") == [video for video in trained for _ in range(2)]
    assert read_jsonl(output / "test.jsonl") == [
        {"caption": "a man, and a dog", "clip_name": "video4"}
    ]
    val = output / "val.jsonl"
    assert (clips(val) if val.exists() else []) == validated


def test_msrvtt_9k_takes_validation_out_of_training(merged: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    for output in (first, again):
        assert convert("msrvtt", merged, output, "--split", "9k", "--num_val", "2") == 0
    val = clips(first / "val.jsonl")
    assert len(set(val)) == len(val) == 2
    assert not set(val) & set(clips(first / "train.jsonl"))
    assert len(set(clips(first / "train.jsonl"))) == 3
    assert (first / "val.jsonl").read_bytes() == (again / "val.jsonl").read_bytes()


def test_msrvtt_training_list_is_followed(merged: Path, tmp_path: Path) -> None:
    listed = write_lines(merged / "MSRVTT_train.9k.csv", ["video_id", "video5", "video0"])
    assert convert("msrvtt", merged, tmp_path / "out", "--split", "9k") == 0
    assert clips(tmp_path / "out" / "train.jsonl") == ["video5"] * 2 + ["video0"] * 2
    write_lines(listed, ["video_id", "video4"])
    assert convert("msrvtt", merged, tmp_path / "out2", "--split", "9k") == 2


def test_msrvtt_pairs_belong_to_the_captions(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = merged / "MSRVTT_JSFUSION_test.csv"
    write_lines(pairs, ["key,vid_key,video_id,sentence", "ret0,msr9,video9,a cat"])
    assert convert("msrvtt", merged, tmp_path / "out", "--split", "9k") == 2
    assert "MSRVTT_JSFUSION_test.csv: 'video9' is not in the JSON files" in capsys.readouterr().err
    write_lines(pairs, ["id,sentence", "video9,a cat"])
    assert convert("msrvtt", merged, tmp_path / "out", "--split", "9k") == 2
    assert "no column 'video_id' in the header ['id', 'sentence']" in capsys.readouterr().err


def test_msrvtt_7k_without_the_test_file_reports_what_is_left_out(
    tmp_path: Path, merged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = msrvtt_info({video: own for video, own in ALL.items() if own != "test"})
    official = write_json(tmp_path / "train_val_videodatainfo.json", trained)
    pairs = merged / "MSRVTT_JSFUSION_test.csv"
    assert convert("msrvtt", [official, pairs], tmp_path / "out") == 0
    assert not (tmp_path / "out" / "val.jsonl").exists()
    told = "no val.jsonl: its videos are in test_videodatainfo.json"
    assert told in capsys.readouterr().out


@pytest.mark.skipif(SHARED is None, reason="real annotations are not here")
@pytest.mark.parametrize(("split", "num_val"), [("7k", 1000), ("9k", 0), ("full", 497)])
def test_msrvtt_counts_with_the_real_test_pairs(tmp_path: Path, split: str, num_val: int) -> None:
    assert SHARED is not None
    real = read_jsonl(SHARED / "real/annotations/msrvtt_ret/test.jsonl")
    ends = {6513: "train", 7010: "validate", 10000: "test"}
    splits = {f"video{n}": next(own for end, own in ends.items() if n < end) for n in range(10000)}
    source, output = tmp_path / "in", tmp_path / "out"
    write_json(source / "MSRVTT_data.json", msrvtt_info(splits, num_captions=20))
    rows = [f"ret{n},m,{row['clip_name']},{row['caption']}" for n, row in enumerate(real)]
    write_lines(source / "MSRVTT_JSFUSION_test.csv", ["key,vid_key,video_id,sentence", *rows])
    assert convert("msrvtt", source, output, "--split", split, "--strict") == 0
    if split != "full":
        wanted = [(row["caption"], row["clip_name"]) for row in real]
        test = read_captions(output / "test.jsonl")
        assert [(row.caption, row.video_id) for row in test] == wanted
    val = output / "val.jsonl"
    assert (len(set(clips(val))) if val.exists() else 0) == num_val


MAPPING = [f"yt_{number}_0_9 vid{number}" for number in range(1, 1971)]


def msvd_lists(folder: Path) -> None:
    for split, clip in (("train", "a_1_2"), ("val", "b_-3_4"), ("test", "c_5_6")):
        write_lines(folder / f"{split}_list.txt", [clip])


def write_msvd(folder: Path, form: str) -> None:
    """One form of the captions; the second clip's name has a dash."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {"a_1_2": ["a cat runs", "a dog"], "b_-3_4": ["two men"], "c_5_6": ["it rains"]}
    lines = [f"{clip} {text}" for clip, texts in captions.items() for text in texts]
    if form == "pickle":
        words = {clip: [text.split() for text in texts] for clip, texts in captions.items()}
        (folder / "raw-captions.pkl").write_bytes(pickle.dumps(words, protocol=2))
    elif form == "text":
        write_lines(folder / "AllVideoDescriptions.txt", ["# corpus", "", *lines])
    else:
        header = "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description"
        rows = [
            ",".join([*line.split()[0].split("_"), "1", "clean", "9", "English"])
            + f',"{line.split(maxsplit=1)[1]}"'
            for line in lines
        ]
        other = "a,1,2,1,clean,9,German,eine Katze"
        write_lines(folder / "video_corpus.csv", [header, other, *rows, "a,1,2,1,clean,9,English,"])


@pytest.mark.parametrize("form", ["pickle", "text", "csv"])
def test_msvd_forms_agree(tmp_path: Path, form: str) -> None:
    msvd_lists(tmp_path / "in")
    write_msvd(tmp_path / "in", form)
    assert convert("msvd", tmp_path / "in", tmp_path / "out") == 0
    assert read_jsonl(tmp_path / "out" / "train.jsonl") == [
        {"caption": "a cat runs", "clip_name": "a_1_2"},
        {"caption": "a dog", "clip_name": "a_1_2"},
    ]
    assert read_jsonl(tmp_path / "out" / "val.jsonl") == [
        {"caption": "two men", "clip_name": "b_-3_4"}
    ]


def test_msvd_splits_by_the_numbers_of_the_mapping(tmp_path: Path) -> None:
    source = tmp_path / "in"
    lines = [f"{line.split()[0]} clip {number}" for number, line in enumerate(MAPPING)]
    write_lines(source / "youtube_mapping.txt", reversed(MAPPING))
    write_lines(source / "AllVideoDescriptions.txt", lines)
    assert convert("msvd", source, tmp_path / "out", "--strict") == 0
    assert clips(tmp_path / "out" / "val.jsonl")[0] == "yt_1201_0_9"
    assert convert("msvd", source, tmp_path / "vid", "--strict", "--ids", "vid") == 0
    assert clips(tmp_path / "vid" / "test.jsonl")[0] == "vid1301"


def test_msvd_captions_by_split_and_number(tmp_path: Path) -> None:
    for split, number in (("train", 2), ("val", 1), ("test", 3)):
        write_lines(tmp_path / f"sents_{split}_lc_nopunc.txt", [f"vid{number}\tsomething {split}"])
    write_lines(tmp_path / "youtube_mapping.txt", MAPPING)
    assert convert("msvd", tmp_path, tmp_path / "out") == 0
    assert read_jsonl(tmp_path / "out" / "val.jsonl") == [
        {"caption": "something val", "clip_name": "yt_1_0_9"}
    ]


def test_pickles_cannot_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    msvd_lists(tmp_path)
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps({"a": [Path("x")]}))
    assert convert("msvd", tmp_path, tmp_path / "out") == 2
    assert "it refers to pathlib" in capsys.readouterr().err


def test_archives_and_compressed_files_are_read(merged: Path, tmp_path: Path) -> None:
    archive = tmp_path / "msrvtt_data.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in merged.iterdir():
            file.write(path, f"msrvtt_data/{path.name}")
        file.writestr("__MACOSX/msrvtt_data/MSRVTT_data.json", "not JSON")
    assert convert("msrvtt", archive, tmp_path / "zip") == 0
    unpacked = (merged / "MSRVTT_data.json").read_bytes()
    (merged / "MSRVTT_data.json").unlink()
    (merged / "MSRVTT_data.json.gz").write_bytes(gzip.compress(unpacked))
    assert convert("msrvtt", merged, tmp_path / "gz") == 0
    for name in ("train", "val", "test"):
        assert (tmp_path / "zip" / f"{name}.jsonl").read_bytes() == (
            tmp_path / "gz" / f"{name}.jsonl"
        ).read_bytes()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("other.json", "{}", "needs train_val_videodatainfo.json (or MSRVTT_data.json), or msrvtt"),
        ("MSRVTT_data.json", "{", "MSRVTT_data.json: not JSON"),
        ("MSRVTT_data.json", "[1, 2]", 'an object with the lists "videos" and "sentences" is'),
        ("MSRVTT_data.json", '{"videos": []}', "MSRVTT_data.json: no 'sentences' (keys: ['vid"),
        ("MSRVTT_data.json", '{"videos": [{"split": "x"}]}', "split 'x' is not one of train"),
        ("MSRVTT_data.json", '{"videos": [{"split": 3}]}', "video 0: 'split' is 3, of type int"),
    ],
)
def test_wrong_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    write_lines(tmp_path / "in" / name, [text])
    assert convert("msrvtt", tmp_path / "in", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_sources_and_duplicate_files_are_errors(
    tmp_path: Path, merged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("msrvtt", tmp_path / "nowhere", tmp_path / "out") == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    write_json(merged / "copy" / "MSRVTT_data.json", {})
    assert convert("msrvtt", merged, tmp_path / "out") == 2
    assert "more than one MSRVTT_data.json" in capsys.readouterr().err


def test_counts_that_differ_warn_or_fail(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("msrvtt", merged, tmp_path / "out", "--strict") == 2
    told = "train.jsonl: 3 videos, but 7,010 are published (the training and validation"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert convert("msrvtt", merged, tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert "warning: train.jsonl: 3 videos, but 7,010 are published" in captured.err
    assert "cut off, filtered, or only a part" in captured.err
    assert "train.jsonl: 6 captions of 3 videos, not as published" in captured.out


def test_counts_above_the_published_ones_are_reported() -> None:
    rows = [{"caption": "a", "clip_name": "b"}] * 2
    conversion = Conversion("caption", {"val": rows}, {"val": Published("somebody", 1, 1)})
    (found,) = differences(conversion)
    assert found.startswith("val.jsonl: 2 captions, but 1 are published (somebody); the source")
    assert "another version" in found


def test_annotations_of_other_conversions_are_kept(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert convert("msrvtt", merged, output) == 0
    assert convert("msrvtt", merged, output) == 0
    kept = (output / "train.jsonl").read_bytes()
    assert convert("msrvtt", merged, output, "--split", "9k") == 2
    assert (output / "train.jsonl").read_bytes() == kept
    assert convert("msrvtt", merged, output, "--split", "9k", "--overwrite") == 0
    assert (output / "train.jsonl").read_bytes() != kept
    told = f"warning: {output / 'val.jsonl'} is not of this conversion and is kept"
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in output.iterdir()) == [
        *("test.jsonl", "train.jsonl", "val.jsonl")
    ]


def test_captions_in_other_letters_are_kept(merged: Path, tmp_path: Path) -> None:
    info = msrvtt_info(ALL)
    info["sentences"][0]["caption"] = "ein Mädchen läuft"
    write_json(merged / "MSRVTT_data.json", info)
    assert convert("msrvtt", merged, tmp_path / "out") == 0
    first = (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert "Mädchen" in first
    assert json.loads(first)["caption"] == "ein Mädchen läuft"
