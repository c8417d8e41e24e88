import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alpro.commands.demo.command import main
from alpro.commands.demo.planning import plan_dataset
from alpro.commands.demo.texts import NUM_QUESTIONS
from alpro.commands.demo.trajectories import NUM_FRAMES, SIZE
from alpro.datasets.annotations import read_captions
from alpro.datasets.decoding import make_decoder
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import USER_ERROR_EXIT_CODE
from alpro.tasks.pretraining.annotations import read_captioned
from alpro.tasks.pretraining.clips import read_clips
from alpro.tasks.question_answering.annotations import read_answer_labels, read_questions
from alpro.tasks.question_answering.batches import group_questions, label_questions

CONFIGS = Path(__file__).parents[2] / "config_release"
COUNTS = {"pretrain": 4, "train": 3, "val": 1, "test": 2}
FINETUNING = ("train", "val", "test")
NUM_IMAGES = 5


def arguments(folder: Path, **changes: int) -> list[str]:
    flags = {f"num_{split}_pairs": count for split, count in COUNTS.items()}
    flags |= {"num_images": NUM_IMAGES, "n_workers": 1}
    flags |= changes
    texts = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    return ["--output_dir", str(folder), *texts]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    assert main(arguments(folder)) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_demo_folder_has_the_documented_layout(made: Path) -> None:
    videos = {path.stem for path in (made / "videos").iterdir()}
    for split in FINETUNING:
        rows = read_captions(made / "txt" / f"{split}.jsonl")
        names = [row.video_id for row in rows]
        assert len(set(names)) == 2 * COUNTS[split]
        assert len(names) == 2 * COUNTS[split] * (3 if split == "train" else 1)
        assert set(names) <= videos
    scenes = [json.loads(line) for line in (made / "txt/scenes.jsonl").read_text().splitlines()]
    assert {scene["clip_name"] for scene in scenes} == videos


def test_pretraining_has_clips_and_images(made: Path) -> None:
    videos = {path.stem for path in (made / "videos").iterdir()}
    items = read_captioned(made / "txt/pretrain.jsonl", "video").items
    assert len(items) == 6 * COUNTS["pretrain"]
    assert {item.video_id for item in items} == {n for n in videos if n.startswith("pretrain")}
    told = read_captioned(made / "txt/images.json", "image").items
    images = {path.name: Image.open(path) for path in (made / "images").iterdir()}
    assert len(images) == NUM_IMAGES
    assert {item.video_id for item in told} == set(images)
    assert {(image.mode, image.size) for image in images.values()} == {("RGB", (SIZE, SIZE))}


def test_middle_frames_have_captions_of_what_is_seen(made: Path) -> None:
    clips = read_clips(
        made / "txt/pretrain.jsonl", captions=made / "txt/pretrain_frames.json", source="caption"
    ).clips
    scenes = [json.loads(line) for line in (made / "txt/scenes.jsonl").read_text().splitlines()]
    things = {scene["clip_name"]: scene["things"] for scene in scenes}
    assert len(clips) == 6 * COUNTS["pretrain"]
    for clip in clips:
        names = [f"{thing['color']} {thing['shape']}" for thing in things[clip.video_id]]
        assert clip.caption == "a " + " and a ".join(names)


def test_pretraining_is_validated_on_clean_captions(made: Path) -> None:
    items = read_captioned(made / "txt/pretrain_val.jsonl", "video").items
    expected = read_captions(made / "txt/val.jsonl")
    assert [(item.video_id, *item.captions) for item in items] == [
        (row.video_id, row.caption) for row in expected
    ]


@pytest.mark.parametrize("split", ["pretrain", "train"])
def test_a_third_of_the_training_captions_are_adjacent_to_siblings(made: Path, split: str) -> None:
    lines = (made / f"txt/{split}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    names = [row.get("video_id") or row["clip_name"] for row in rows]
    blocks = list(zip(names[::2], names[1::2], strict=True))  # what `shuffle_block_size: 2` keeps
    siblings = [first[:-1] == second[:-1] and first != second for first, second in blocks]
    assert siblings == [True] * COUNTS[split] + [False] * 2 * COUNTS[split]


def test_questions_are_ordered_by_clip(made: Path) -> None:
    for split in FINETUNING:
        names = [row.video_id for row in read_questions(made / f"txt/{split}_qa.jsonl")]
        captioned = {row.video_id for row in read_captions(made / f"txt/{split}.jsonl")}
        assert names == sorted(names)
        assert set(names) == captioned
        most = max(Counter(names).values())
        assert most <= 5 if split == "train" else most > 5


def test_siblings_meet_in_the_demos_batches_of_questions(made: Path) -> None:
    config = json.loads((CONFIGS / "demo_qa.json").read_text())
    max_group = config["max_n_example_per_group"]
    assert max_group >= (NUM_QUESTIONS["train"] or 0)
    labels = read_answer_labels(made / "txt/ans2label.json")
    labelled = label_questions(read_questions(made / "txt/train_qa.jsonl"), labels)
    names = [group.video_id for group in group_questions(labelled, max_group=max_group)]
    assert config["shuffle_block_size"] == 2
    blocks = list(zip(names[::2], names[1::2], strict=True))
    siblings = [(f"train{i:05}a", f"train{i:05}b") for i in range(COUNTS["train"])]
    assert blocks == siblings


def test_labels_number_the_answers_of_the_training_questions(made: Path) -> None:
    labels = read_answer_labels(made / "txt/ans2label.json")
    answers = {row.answer for row in read_questions(made / "txt/train_qa.jsonl")}
    assert labels.texts == tuple(sorted(answers))


def test_questions_follow_from_the_seed(made: Path) -> None:
    before = contents(made / "txt")
    assert main(arguments(made, seed=1)) == 0
    after = contents(made / "txt")
    assert set(after) == set(before)
    assert all(after[f"{split}_qa.jsonl"] != before[f"{split}_qa.jsonl"] for split in FINETUNING)


def test_a_dataset_without_questions_gets_them(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(made)
    for path in [*made.glob("txt/*_qa.jsonl"), made / "txt/ans2label.json"]:
        path.unlink()
    capsys.readouterr()
    assert main(arguments(made)) == 0
    assert "4 text files written" in capsys.readouterr().out
    assert contents(made) == before


def test_a_clip_holds_the_frames_drawn(made: Path) -> None:
    pair = plan_dataset(num_pairs=COUNTS, seed=0)[-1]
    drawn = pair.render()[0].transpose(0, 3, 1, 2)
    decoded = make_decoder("pyav").read(
        made / "videos" / f"{pair.clips[0].name}.mp4",
        np.arange,
        preprocessing=PixelPreprocessing(size=SIZE),
    )
    assert decoded.shape == (NUM_FRAMES, 3, SIZE, SIZE)
    assert np.abs(decoded.astype(float) - drawn).mean() < 8


def test_a_second_run_renders_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert main(arguments(made)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == times


def test_an_interrupted_run_is_completed(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(made)
    (made / "videos/test00001b.mp4").unlink()
    (made / "images/image00002.jpg").unlink()
    (made / "txt/val.jsonl").unlink()
    capsys.readouterr()
    assert main(arguments(made)) == 0
    assert "20 clips, 5 images; 2 of 15 pairs and images rendered" in capsys.readouterr().out
    assert contents(made) == before


def test_other_parameters_replace_the_dataset(made: Path) -> None:
    before = contents(made)
    assert main(arguments(made, num_train_pairs=2, num_images=4)) == 0
    after = contents(made)
    gone = {f"videos/train00002{letter}.mp4" for letter in "ab"} | {"images/image00004.jpg"}
    assert set(before) - set(after) == gone
    assert main(arguments(made)) == 0
    assert contents(made) == before


def test_the_number_of_processes_does_not_change_the_files(tmp_path: Path) -> None:
    assert main(arguments(tmp_path / "two", n_workers=2, num_train_pairs=40)) == 0
    assert main(arguments(tmp_path / "one", n_workers=1, num_train_pairs=40)) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_foreign_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert main(arguments(tmp_path)) == USER_ERROR_EXIT_CODE
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_tokenizer_is_written_without_clips(tmp_path: Path) -> None:
    assert main(["--write_tokenizer", str(tmp_path / "tokenizer")]) == 0
    assert {path.name for path in (tmp_path / "tokenizer").iterdir()} == {
        "vocab.txt",
        "tokenizer_config.json",
    }
