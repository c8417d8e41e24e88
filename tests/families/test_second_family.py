"""A family that exists in the tests alone works without an edit of the framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from alpro.configs.errors import ConfigError
from alpro.configs.loading import ResolvedConfig, load_config
from alpro.datasets.decoding import FrameSelector, Video
from alpro.errors import InputError
from alpro.experiment.experiment import Experiment
from alpro.families import registry
from alpro.modeling.contracts import DualEncoder, Matcher
from alpro.runs.run import finetune, infer, launch_run
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig
from tests.factories import VOCABULARY, FakeDecoder, TinyExperiment, caption_of
from tests.families.tiny.family import MAX_LOGIT_SCALE, TinyDualEncoder, preprocessing


@pytest.fixture(autouse=True)
def second_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.FAMILIES, "tiny", "tests.families.tiny")
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: FakeDecoder())


class TowerExperiment(TinyExperiment):
    """The experiment of ALPRO's tests, with the second family's files in place of ALPRO's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("visual_model_cfg", "model_config"):
            del self.values[key]
        words = ["_", "?", *dict.fromkeys(" ".join(map(caption_of, range(60))).split())]
        folder = self.root / "words"
        folder.mkdir(exist_ok=True)
        (folder / "words.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
        towers = {"width": 6, "num_words": len(words), "model_type": "tiny"}
        self.values["tiny_config"] = str(self.write("towers.json", towers))
        self.values |= {"tokenizer_dir": str(folder), "num_train_epochs": 4, "clip_weights": "x"}


@pytest.fixture
def experiment(tmp_path: Path) -> TowerExperiment:
    return TowerExperiment(tmp_path)


def resolved_of(arguments: list[str]) -> ResolvedConfig[Any]:
    return load_config(RetrievalConfig, arguments)


def run(arguments: list[str]) -> None:
    resolved = resolved_of(arguments)
    with launch_run(resolved) as engine:
        (infer if resolved.config.do_inference else finetune)(Experiment(resolved, engine=engine))


def weights_of(root: Path, step: str) -> dict[str, Tensor]:
    return torch.load(root / "ckpt" / f"model_step_{step}.pt", weights_only=True)


def scores_in(root: Path) -> dict[str, Any]:
    (path,) = root.glob("results_test/*/scores.json")
    return json.loads(path.read_text())


def test_a_config_names_its_family_by_the_keys_that_only_this_has(
    experiment: TowerExperiment,
) -> None:
    resolved = resolved_of(experiment.arguments())
    assert resolved.config.family == "tiny"
    assert resolved.architecture["tiny_config"].width == 6
    assert resolved.config.use_itm is False
    assert "clip_weights" in resolved.warnings[0]
    values = {**experiment.values, "towers": experiment.values["tiny_config"], "family": "tiny"}
    del values["tiny_config"]
    path = experiment.write("aliased.json", values)
    resolved = resolved_of(["--config", str(path), "--output_dir", "out"])
    assert resolved.config.tiny_config == values["towers"]


def test_the_config_of_the_documentation_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    resolved = resolved_of(["--config", "tests/families/tiny/train.json", "--output_dir", "unused"])
    assert resolved.warnings == []
    assert resolved.architecture["tiny_config"].width == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "alpro"}, "unknown key tiny_config"),
        ({"family": "tinny"}, 'family is "tinny", which does not exist. Did you mean tiny?'),
        ({"crop_img_size": 30}, "frames are cut into whole cells"),
        ({"visual_model_cfg": "a.json"}, "unknown key visual_model_cfg"),
    ],
)
def test_keys_files_and_rules_of_other_families_do_not_apply(
    experiment: TowerExperiment, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved_of(experiment.arguments(**changes))
    assert any(message in error for error in caught.value.errors)


def test_the_help_of_a_family_lists_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        resolved_of(["--family", "tiny", "--help"])
    shown = capsys.readouterr().out
    assert "--tiny_config" in shown
    assert "--visual_model_cfg" not in shown


def test_the_family_trains_validates_and_evaluates(experiment: TowerExperiment) -> None:
    run(experiment.arguments(learning_rate=0.05))
    root = experiment.root / "run"
    weights = weights_of(root, "last")
    assert weights.keys() == {"visual.weight", "visual.bias", "words.weight", "logit_scale"}
    assert float(weights["logit_scale"]) <= MAX_LOGIT_SCALE
    records = [json.loads(line) for line in (root / "log/metrics.jsonl").read_text().splitlines()]
    losses = [record["itc_loss"] for record in records if record.get("split") == "train"]
    assert losses[-1] < losses[0]
    assert any("text2video_r1" in record for record in records)
    assert scores_in(root)["text2video"] == scores_in(root)["text2video_vtc"]
    assert (root / "log/tiny_config.json").is_file()


def test_frames_are_preprocessed_as_the_family_says(
    experiment: TowerExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class RecordingDecoder(FakeDecoder):
        def read(self, video: Video, select: FrameSelector, **how: Any) -> np.ndarray:
            asked.append(how["preprocessing"])
            return super().read(video, select, **how)

    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: RecordingDecoder())
    run(experiment.arguments())
    assert set(asked) == {preprocessing(resolved_of(experiment.arguments()).config)}
    assert scores_in(experiment.root / "run")["protocol"]["preprocessing"] == {
        **{"resize": "pad", "antialias": False, "scale": 255, "channel_order": "bgr"}
    }


def test_an_interrupted_run_ends_like_one_that_was_not(experiment: TowerExperiment) -> None:
    run(experiment.arguments(output="whole"))
    original = TinyDualEncoder.encode_video
    calls = []

    def dying(model: TinyDualEncoder, frames: Tensor) -> Any:
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return original(model, frames)

    with (
        mock.patch.object(TinyDualEncoder, "encode_video", dying),
        pytest.raises(KeyboardInterrupt),
    ):
        run(experiment.arguments(output="run"))
    assert (experiment.root / "run/restore.pt").exists()
    run(experiment.arguments(output="run"))
    whole, resumed = (weights_of(experiment.root / name, "last") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_is_evaluated_by_the_family_that_it_has_stored(experiment: TowerExperiment) -> None:
    run(experiment.arguments())
    trained = scores_in(experiment.root / "run")
    for path in (experiment.root / "run").glob("results_test/*/scores.json"):
        path.unlink()
    part = experiment.dataset("test")
    run(
        ["--output_dir", str(experiment.root / "run"), "--do_inference", "1", "--device", "cpu"]
        + ["--inference_txt_db", part["txt"], "--inference_img_db", part["img"]]
    )
    assert scores_in(experiment.root / "run")["text2video"] == trained["text2video"]


def test_a_checkpoint_in_other_names_is_loaded_and_one_of_another_size_refused(
    experiment: TowerExperiment, tmp_path: Path
) -> None:
    size = resolved_of(experiment.arguments()).architecture["tiny_config"]
    model = TinyDualEncoder(width=size.width, num_words=size.num_words, grid=size.grid)
    state = {
        **{f"module.vision.{name}": value for name, value in model.visual.state_dict().items()},
        "module.text.weight": model.words.weight.detach(),
        **{"module.logit_scale": torch.tensor(3.0), "module.aux_head.bias": torch.zeros(2)},
    }
    torch.save({"state_dict": state}, tmp_path / "foreign.pt")
    flags = ("--e2e_weights_path", str(tmp_path / "foreign.pt"))
    resolved = resolved_of(experiment.arguments(*flags))
    with launch_run(resolved) as engine:
        started = Experiment(resolved, engine=engine).start_model()
    assert torch.equal(started.visual.weight, model.visual.weight)
    assert float(started.logit_scale.detach()) == 3.0
    run(experiment.arguments(*flags))
    experiment.write("towers.json", {"width": 7, "num_words": size.num_words})
    with pytest.raises(InputError, match=r"model of tiny_config:\n.*visual\.weight: \(6, 48\)"):
        run(experiment.arguments(*flags, output="other"))


def test_matching_and_tasks_that_the_family_lacks_are_refused(experiment: TowerExperiment) -> None:
    model = TinyDualEncoder(width=2, num_words=3, grid=1)
    assert isinstance(model, DualEncoder)
    assert not isinstance(model, Matcher)
    with pytest.raises(InputError, match="use_itm: models of the family tiny do not match"):
        run(experiment.arguments(use_itm=1))
    resolved: Any = load_config(
        QaConfig, experiment.arguments(ans2label_path="labels.json", use_itm=0)
    )
    with (
        launch_run(resolved) as engine,
        pytest.raises(InputError, match="family: tiny has no task question_answering, only retr"),
    ):
        Experiment(resolved, engine=engine)


def test_a_tokenizer_of_another_size_is_refused(experiment: TowerExperiment) -> None:
    experiment.write("towers.json", {"num_words": len(VOCABULARY) + 500})
    with pytest.raises(InputError, match="tokenizer_dir: the vocabulary in .* tokens"):
        run(experiment.arguments())
