"""Runs of CLIP-ViP's own configs through the script of retrieval, on a tiny CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from alpro.configs.loading import ResolvedConfig, load_config
from alpro.datasets.decoding import FrameSelector, Video
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError
from alpro.experiment.experiment import Experiment
from alpro.families.clip_vip.model import ClipVip
from alpro.runs.run import finetune, infer, launch_run
from alpro.tasks.retrieval.config import RetrievalConfig
from tests.factories import FakeDecoder, caption_of
from tests.families.clip_vip.tiny_clip import ClipVipExperiment, write_clip


class RecordingDecoder(FakeDecoder):
    """Notes how many frames of each video are asked for, and in which form."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[tuple[str, int]] = set()
        self.preprocessing: set[PixelPreprocessing] = set()

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> Any:
        assert isinstance(video, Path)
        self.asked.add((video.stem.rstrip("0123456789"), len(select(100))))
        self.preprocessing.add(preprocessing)
        return super().read(video, select, preprocessing=preprocessing)


@pytest.fixture(autouse=True)
def decoder(monkeypatch: pytest.MonkeyPatch) -> RecordingDecoder:
    decoder = RecordingDecoder()
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: decoder)
    return decoder


def resolved_of(arguments: list[str]) -> ResolvedConfig[Any]:
    return load_config(RetrievalConfig, arguments)


def run(arguments: list[str]) -> None:
    resolved = resolved_of(arguments)
    with launch_run(resolved) as engine:
        (infer if resolved.config.do_inference else finetune)(Experiment(resolved, engine=engine))


def started(arguments: list[str]) -> ClipVip:
    resolved = resolved_of(arguments)
    with launch_run(resolved) as engine:
        return Experiment(resolved, engine=engine).start_model()


def weights_of(root: Path, step: str) -> dict[str, Tensor]:
    return torch.load(root / "ckpt" / f"model_step_{step}.pt", weights_only=True)


def scores_in(root: Path, name: str = "test") -> dict[str, Any]:
    (path,) = root.glob(f"results_{name}/*/scores.json")
    return json.loads(path.read_text())


def test_a_shipped_config_trains_validates_and_evaluates(
    experiment: ClipVipExperiment, decoder: RecordingDecoder
) -> None:
    run(experiment.arguments())
    root = experiment.root / "run"
    # Six videos in batches of three, four times; validations every third update, the last saved.
    assert sorted(path.stem for path in (root / "ckpt").iterdir()) == [
        *("model_step_8", "model_step_best", "model_step_last")
    ]
    records = [json.loads(line) for line in (root / "log/metrics.jsonl").read_text().splitlines()]
    validated = [one["step"] for one in records if "text2video_r1" in one]
    assert validated == [0, 3, 6, 8]
    assert all(name.startswith("clipmodel.") for name in weights_of(root, "last"))
    # Evaluation has frames of its own; all are squashed by a plain cubic filter.
    assert decoder.asked == {("train", 2), ("val", 3), ("test", 3)}
    (preprocessing,) = decoder.preprocessing
    assert (preprocessing.resize, preprocessing.interpolation, preprocessing.antialias) == (
        *("squash", "bicubic", False),
    )
    protocol = scores_in(root)["protocol"]
    assert (protocol["num_frames"], protocol["frame_sampling"]) == (3, "linspace")
    assert "text2video_dsl" in scores_in(root)


def test_an_interrupted_run_ends_like_one_that_was_not(experiment: ClipVipExperiment) -> None:
    run(experiment.arguments(output="whole"))
    original, calls = ClipVip.encode_text, []

    def dying(model: ClipVip, ids: Tensor, mask: Tensor) -> Any:
        calls.append(len(ids))
        if calls.count(3) == 6 and len(ids) == 3:  # of the batches of training
            raise KeyboardInterrupt
        return original(model, ids, mask)

    with mock.patch.object(ClipVip, "encode_text", dying), pytest.raises(KeyboardInterrupt):
        run(experiment.arguments())
    assert (experiment.root / "run/restore.pt").exists()
    run(experiment.arguments())
    whole, resumed = (weights_of(experiment.root / name, "last") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_is_evaluated_as_it_was_trained(experiment: ClipVipExperiment) -> None:
    run(experiment.arguments())
    trained = scores_in(experiment.root / "run")
    for path in (experiment.root / "run").glob("results_test/*/scores.json"):
        path.unlink()
    run(["--output_dir", str(experiment.root / "run"), *experiment.inference_flags()])
    assert scores_in(experiment.root / "run")["text2video"] == trained["text2video"]


def test_clip_is_evaluated_without_training(experiment: ClipVipExperiment) -> None:
    weights = str(experiment.clip / "model.safetensors")
    flags = ["--e2e_weights_path", weights, *experiment.inference_flags("val")]
    plain = {"clip_vision_additional_config": {"type": "CLIP"}}
    run(experiment.arguments(*flags, output="plain", **plain))
    scores = scores_in(experiment.root / "plain", "val")
    assert scores["text2video"]["meanR"] >= 1


def test_a_list_of_texts_is_one_pair_of_each_epoch(
    experiment: ClipVipExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": [caption_of(i), caption_of(i + 9)], "clip_id": f"train{i}"} for i in range(6)]
    path = experiment.write("lists.jsonl", "")
    path.write_text("\n".join(map(json.dumps, rows)))
    train = {**experiment.dataset("train"), "txt": str(path)}
    run(experiment.arguments(train_datasets=train))
    log = capsys.readouterr().err
    assert "6 captions, 6 videos to train on" in log
    assert "updates: 8," in log


def test_ids_may_have_folders_that_the_videos_do_not_have(
    experiment: ClipVipExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": caption_of(i), "clip_id": f"some/where/train{i}"} for i in range(6)]
    path = experiment.write("nested.jsonl", "")
    path.write_text("\n".join(map(json.dumps, rows)))
    train = {**experiment.dataset("train"), "txt": str(path)}
    flags = ["--dry_run", "1", "--train_batch_size", "2"]
    run(experiment.arguments(*flags, train_datasets=train))
    assert "last part of ids such as some/where/train0 names the video" in capsys.readouterr().err
    # Where the folders exist, ids name them.
    videos = experiment.root / "videos"
    (videos / "some/where").mkdir(parents=True)
    for number in range(6):
        (videos / f"train{number}.mp4").rename(videos / f"some/where/train{number}.mp4")
    run(experiment.arguments(*flags, train_datasets=train))
    assert "last part of ids" not in capsys.readouterr().err


def test_the_log_states_interpolation_and_selection_on_the_test_set(
    experiment: ClipVipExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = [experiment.dataset("val")]
    run(experiment.arguments("--dry_run", "1", inference_datasets=tests))
    log = capsys.readouterr().err
    assert "2 frames: the time embedding of 12 is interpolated" in log
    assert "3 frames: the time embedding of 12 is interpolated" in log
    assert "val_datasets.0 is the test set" in log
    run(experiment.arguments("--dry_run", "1"))
    assert "is the test set" not in capsys.readouterr().err


def test_scale_of_similarities(experiment: ClipVipExperiment) -> None:
    assert float(started(experiment.arguments()).logit_scale.detach()) == pytest.approx(4.6)
    model = started(experiment.arguments(overload_logit_scale=3.5))
    assert float(model.logit_scale.detach()) == 3.5


def test_groups_of_the_optimizer(experiment: ClipVipExperiment) -> None:
    arguments = experiment.arguments(lr_mul=10, lr_mul_prefix="logit_scale")
    resolved = resolved_of(arguments)
    with launch_run(resolved) as engine:
        built = Experiment(resolved, engine=engine)
        model = built.start_model()
        groups = built.family.parameter_groups(model, resolved.config)
    scaled = [group for group in groups if group.lr_scale == 10]
    assert [group.weight_decay for group in scaled] == [0.0]
    assert scaled[0].parameters[0] is model.logit_scale


def test_models_and_losses_that_do_not_fit(experiment: ClipVipExperiment, tmp_path: Path) -> None:
    other = write_clip(tmp_path / "other", patch_size=8)
    with pytest.raises(InputError, match="patch_size is 8 in the file, 16 in the config"):
        run(experiment.arguments(clip_weights=str(other)))
    small = write_clip(tmp_path / "small", vocab_size=500)
    with pytest.raises(InputError, match="has 49408 tokens, but the text encoder expects 500"):
        run(experiment.arguments(clip_config=str(small), clip_weights=str(small)))
    of_pretraining = {"loss_name": "NCELearnableTempLoss_vsc_fc", "if_gather": 1}
    with pytest.raises(InputError, match="loss_name: .* which retrieval has not. Take one of"):
        run(experiment.arguments(loss_config=of_pretraining))
    with pytest.raises(InputError, match=r"e2e_weights_path: .*there is no such checkpoint"):
        run(experiment.arguments(e2e_weights_path="path/to/CLIP-ViP-B/32/checkpoint"))
