from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alpro.commands.gallery.entity_predictions import (
    PairPrediction,
    evenly_spaced,
    predict_validation_pairs,
    split_evenly,
)
from alpro.commands.show_entities import NUM_IN_PICTURE, main, read_run
from alpro.configs.loading import ResolvedConfig, load_config
from alpro.distributed.engine import SingleProcess
from alpro.errors import USER_ERROR_EXIT_CODE
from alpro.experiment.experiment import Experiment
from alpro.tasks.pretraining.config import PretrainConfig, PrompterConfig
from alpro.training.run_directory import RunDirectory
from tests.factories import CPU, IMAGE_SIZE, NUM_FRAMES, FakeDecoder, write_videos
from tests.pretraining_factories import (
    ENTITIES,
    PretrainExperiment,
    given,
    make_pretraining_task,
)

NUM_VIDEOS, NUM_IMAGES = 5, 4


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> FakeDecoder:
    decoder = FakeDecoder()
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: decoder)
    return decoder


@pytest.fixture
def run(tmp_path: Path, decoder: FakeDecoder) -> Path:  # noqa: ARG001
    """The folder of a run as training leaves it."""
    experiment = PretrainExperiment(tmp_path, num_val=NUM_VIDEOS, num_val_images=NUM_IMAGES)
    trained = experiment_of(load_config(PretrainConfig, experiment.arguments()))
    output = RunDirectory(tmp_path / "run", rank=0)
    arguments = {**trained.resolved.to_json(), "script": PretrainConfig.SCRIPT}
    arguments["architecture"] = {
        key: asdict(content) for key, content in trained.resolved.architecture.items()
    }
    output.claim(arguments, may_differ=(), overwrite=False)
    model = trained.start_model()
    given(model.prompter).temp.data.fill_(0.02)
    for parameter in given(model.mpm_head).parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    output.checkpoint("best").parent.mkdir()
    torch.save(model.state_dict(), output.checkpoint("best"))
    (tmp_path / "entities.txt").unlink()  # the run has a copy,
    (tmp_path / "prompter.pt").unlink()  # its checkpoint the prompter
    return output.root


def experiment_of(resolved: ResolvedConfig[PretrainConfig]) -> Experiment[PretrainConfig]:
    return Experiment(resolved, engine=SingleProcess(CPU, scale_loss=False))


def change_config(run: Path, **changes: object) -> None:
    stored = run / "log/args.json"
    stored.write_text(json.dumps({**json.loads(stored.read_text()), **changes}))


def tell(run: Path, *changes: str, num_pairs: int = 99) -> list[list[PairPrediction]]:
    resolved = read_run(run, step="best", changes=changes)
    return [one.pairs for one in predict_validation_pairs(resolved, num_pairs=num_pairs)]


def test_sets_share_the_clips_and_each_spreads_its_own() -> None:
    assert split_evenly(7, sizes=[10, 10]) == [4, 3]
    assert split_evenly(8, sizes=[2, 10, 3]) == [2, 3, 3]
    assert split_evenly(8, sizes=[1, 2]) == [1, 2]
    assert split_evenly(1, sizes=[5, 5]) == [1, 0]
    assert evenly_spaced(4, size=100) == [12, 37, 62, 87]
    assert evenly_spaced(3, size=3) == [0, 1, 2]
    assert evenly_spaced(0, size=3) == []


def test_what_is_shown_is_what_validation_counts(run: Path) -> None:
    told = [pair for one in tell(run) for pair in one]
    assert len(told) == NUM_VIDEOS + NUM_IMAGES
    best = sorted(pair.prompter.max() for pair in told)
    threshold = float(np.mean(best[3:5]))  # 5 of 9 are confident
    resolved = read_run(run, step="best", changes=["--entity_threshold", str(threshold)])
    trained = experiment_of(resolved)
    task = make_pretraining_task(trained.start_model(), entity_threshold=threshold)
    expected = task.evaluate(*trained.task.data.validation())
    sure = [
        pair
        for one in tell(run, "--entity_threshold", str(threshold))
        for pair in one
        if pair.is_confident
    ]
    agreed = sum(pair.prompter.argmax() == pair.model.argmax() for pair in sure)
    losses = [-(pair.prompter * np.log(pair.model)).sum() for pair in sure]
    assert len(sure) == 5
    assert expected["mpm_confident"] == pytest.approx(100 * 5 / 9)
    assert expected["mpm_acc"] == pytest.approx(100 * agreed / 5)
    assert expected["mpm_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_videos_and_images_are_told_with_the_captions_they_have(run: Path) -> None:
    videos, images = tell(run, num_pairs=4)
    assert [pair.item.video_id for pair in videos] == ["val1", "val3"]
    assert [pair.item.video_id for pair in images] == ["val1.png", "val3.png"]
    for pair in [*videos, *images]:
        assert pair.caption in pair.item.captions
        assert pair.prompter.sum() == pytest.approx(1)
        assert pair.model.sum() == pytest.approx(1)
        assert pair.region.any()
    assert videos[0].frames.shape == (NUM_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert images[0].frames.shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE)


def test_a_page_and_a_picture_are_written(
    run: Path, decoder: FakeDecoder, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = run / "docs" / "entities.png"
    flags = ["--output_dir", str(run), "--num_clips", "5"]
    assert main([*flags, "--picture", str(picture)]) == 0
    assert capsys.readouterr().out == f"page: {run / 'entities.html'}\npicture: {picture}\n"
    assert decoder.reads == {"val0": 1, "val2": 1, "val4": 1}
    page = (run / "entities.html").read_text()
    assert page.count("<article ") == 5
    assert page.count("<img ") == 2 * (3 * NUM_FRAMES + 2)
    assert "3 of 5 validation videos (tiny val), 2 of 4 validation images" in page
    assert f"checkpoint best: 3 of {NUM_VIDEOS}" in page
    shown = re.findall(r'<div class="row \w+"><span[^>]*><bdi lang="">(\w+)</bdi>', page)
    assert set(shown) == set(ENTITIES)
    with Image.open(picture) as image:
        four = image.height
    assert main([*flags, "--output_file", str(run / "again.html")]) == 0
    assert (run / "again.html").read_text() == page
    assert main([*flags[:2], "--num_clips", "1", "--picture", str(picture)]) == 0
    with Image.open(picture) as image:
        assert four > 0.75 * NUM_IN_PICTURE * image.height


def test_clips_that_cannot_be_read_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_videos(run.parent / "videos", ["val1"], broken=["val1"])
    flags = ["--output_dir", str(run), "--num_clips", "4"]
    assert main(flags) == 0
    assert "left out: tiny val: val1: made to be unreadable" in capsys.readouterr().err
    assert "1 of 5 validation videos" in (run / "entities.html").read_text()
    (run / "one.jsonl").write_text('{"video_id": "val1", "text": "a box"}\n')
    part = {"name": "one", "img": str(run.parent / "videos"), "ann": str(run / "one.jsonl")}
    change_config(run, val_datasets=[part])
    assert main(flags) == USER_ERROR_EXIT_CODE
    assert "none of the chosen validation clips can be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"script": PrompterConfig.SCRIPT}, f"is a run of {PrompterConfig.SCRIPT}"),
        ({"use_mpm": False}, "without PEM"),
        (
            {"architecture": {"visual_model_cfg": {"num_heads": 7}, "model_config": {}}},
            "is not the one of",
        ),
        ({"tokenizer_dir": "gone"}, "gone"),
        ({"num_entities": 4}, "Set num_entities to 5"),
    ],
)
def test_a_run_that_cannot_be_shown_is_refused(
    run: Path, changes: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change_config(run, **changes)
    assert main(["--output_dir", str(run)]) == USER_ERROR_EXIT_CODE
    assert message in capsys.readouterr().err
    assert not (run / "entities.html").exists()


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("run/log/args.json", "is not the folder of a run"),
        ("run/log/model_config.json", "model_config.json"),
        ("run/log/entities.txt", "entities.txt"),
        ("run/ckpt/model_step_best.pt", "no checkpoint yet"),
        ("txt/val.jsonl", "val_datasets.0.ann (tiny val)"),
    ],
)
def test_what_is_missing_is_named(
    run: Path, gone: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.parent / gone).unlink()
    assert main(["--output_dir", str(run)]) == USER_ERROR_EXIT_CODE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--step", "7"], "there is best"),
        (["--num_clip", "7"], "num_clip"),
        (["--output_file", "."], "give another --output"),
        (["--picture", "picture.txt"], "give another --picture"),
    ],
)
def test_wrong_flags_are_refused(
    run: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run)
    assert main(["--output_dir", str(run), "--num_clips", "1", *flags]) == USER_ERROR_EXIT_CODE
    assert message in capsys.readouterr().err


def test_a_run_of_an_earlier_version_is_shown_with_its_own_text_encoder(run: Path) -> None:
    stored = json.loads((run / "log/args.json").read_text())
    (run / "log/visual_model_cfg.json").unlink()
    video = stored.pop("architecture")["visual_model_cfg"]
    (run / "log/args.json").write_text(json.dumps({**stored, "visual_model": video}))
    own = read_run(run, step="best", changes=()).config
    assert getattr(own, "model_config") == str(run / "log/model_config.json")  # noqa: B009
    assert getattr(own, "visual_model_cfg") == stored["visual_model_cfg"]  # noqa: B009
