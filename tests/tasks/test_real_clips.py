"""Real videos with real captions, where the folder of shared data has them; minutes, hence slow."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from alpro.configs.loading import load_config
from alpro.datasets.decoding import make_decoder
from alpro.datasets.frame_sampling import frame_indices
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig
from tasks import run_video_qa, run_video_retrieval
from tests.datasets.clips import write_frames
from tests.parity.golden import fill
from tests.shared_data import shared_data

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NUM_CLIPS = 26
SMALL = 96  # pixels
SMALL_VIDEO_MODEL = {
    **{"cls": "TimeSformer", "patch_size": 16, "embed_dim": 128, "depth": 3, "num_heads": 4},
    **{"drop_path_rate": 0.0, "pooling": "mean", "temporal_init": "normal"},
    **{"initializer_range": 0.05, "pos_embed_std": 0.5, "time_embed_std": 0.5},
}
SMALL_TEXT_MODEL = {
    **{"hidden_size": 128, "num_hidden_layers": 4, "fusion_layer": 2, "num_attention_heads": 4},
    **{"intermediate_size": 512, "hidden_dropout_prob": 0.0, "initializer_range": 0.05},
    **{"attention_probs_dropout_prob": 0.0, "vocab_size": 30522, "itc_embed_dim": 128},
}


@pytest.fixture
def clips() -> dict[str, str]:
    """The real clips as an entry of ``train_datasets`` and the like."""
    shared = shared_data()
    if shared is None or not (shared / "real" / "videos").is_dir():
        pytest.skip("needs the real clips of ../shared")
    captions = shared / "real" / "annotations" / "clips.jsonl"
    return {"name": "clips", "txt": str(captions), "img": str(shared / "real" / "videos")}


@pytest.fixture
def questions() -> Path:
    """Annotations of 234 real questions about ten of the clips."""
    shared = shared_data()
    if shared is None or not (shared / "real" / "videos").is_dir():
        pytest.skip("needs the real clips of ../shared")
    return shared / "real" / "annotations" / "msrvtt10_qa.jsonl"


def run(
    monkeypatch: pytest.MonkeyPatch, *arguments: object, script: ModuleType = run_video_retrieval
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
    script.main()


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def small_copies(videos: Path, folder: Path, *, pattern: str = "*") -> Path:
    """32 frames of each video at 96 pixels: decoding the originals would take most of the time."""
    folder.mkdir()
    for path in sorted(videos.glob(pattern)):
        frames = make_decoder("auto").read(
            path,
            lambda count: frame_indices("uniform", num_video_frames=count, num_frames=32, rng=None),
            preprocessing=PixelPreprocessing(size=SMALL),
        )
        write_frames(folder / path.name, frames.transpose(0, 2, 3, 1), group_size=8)
    return folder


def test_a_small_model_learns_its_training_captions(
    clips: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips["img"] = str(small_copies(Path(clips["img"]), tmp_path / "videos"))
    published = json.loads((ROOT / "config_release" / "msrvtt_ret.json").read_text())
    sets = {f"{split}_datasets": [clips] for split in ("train", "val", "test")}
    changes = {
        **{"visual_model_cfg": str(write(tmp_path / "video.json", SMALL_VIDEO_MODEL))},
        **{"model_config": str(write(tmp_path / "text.json", SMALL_TEXT_MODEL))},
        **{"e2e_weights_path": None, "random_init": 1, "crop_img_size": SMALL, "num_frm": 4},
        **{"frm_sampling_strategy": "segment", "train_batch_size": 13, "val_batch_size": 13},
        **{"num_train_epochs": 150, "learning_rate": 1e-3, "num_valid": 6, "min_valid_steps": 10},
        **{"save_steps_ratio": 0.5, "num_workers": 1},
    }
    config = write(tmp_path / "config.json", {**published, **sets, **changes})
    run(monkeypatch, "--config", config, "--output_dir", tmp_path / "run")
    results = tmp_path / "run" / "results_clips" / "step_best_1_mean" / "scores.json"
    scores = json.loads(results.read_text())
    assert scores["protocol"]["num_captions"] == scores["protocol"]["num_videos"] == NUM_CLIPS
    assert scores["text2video"]["r1"] == 100.0
    assert scores["text2video_vtc"]["r1"] == 100.0


def release(folder: Path, resolved: Any, model: torch.nn.Module) -> None:
    """Write a folder like the released ones, its checkpoint filled with random numbers."""
    (folder / "ckpt").mkdir(parents=True)
    fill(model)
    torch.save(model.state_dict(), folder / "ckpt" / "model_step_best.pt")
    write(folder / "log" / "args.json", resolved.to_json())
    text_model = ROOT / "config_release" / "base_model.json"
    shutil.copyfile(text_model, folder / "log" / "model_config.json")


def test_full_size_inference_from_a_folder_like_the_released_ones(
    clips: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alpro.families.alpro.retrieval import build_retrieval_model

    monkeypatch.chdir(ROOT)
    folder = tmp_path / "public"
    config = ROOT / "config_release" / "msrvtt_ret.json"
    resolved = load_config(RetrievalConfig, ["--config", str(config), "--output_dir", str(folder)])
    release(folder, resolved, build_retrieval_model(resolved.config, resolved.architecture))

    run(
        monkeypatch,
        *("--do_inference", 1, "--inference_split", "test", "--inference_model_step", "best"),
        *("--inference_txt_db", clips["txt"], "--inference_img_db", clips["img"]),
        *("--inference_batch_size", 64, "--output_dir", folder, "--config", config),
    )
    results = folder / "results_clips" / "step_best_1_mean"
    records = json.loads((results / "results.json").read_text())
    assert len(records) == NUM_CLIPS**2
    assert all(0.0 <= record["score"] <= 1.0 for record in records)
    scores = json.loads((results / "scores.json").read_text())
    assert scores["protocol"]["num_scored_pairs"] == NUM_CLIPS**2
    assert scores["protocol"]["resolution"] == 224


def test_a_small_model_learns_its_training_questions(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_questions, num_unanswerable = 200, 14
    videos = small_copies(questions.parents[1] / "videos", tmp_path / "videos", pattern="video70*")
    asked = questions.read_text().splitlines()[:num_questions]
    (tmp_path / "first.jsonl").write_text("\n".join(asked) + "\n")
    part = {"name": "first", "txt": str(tmp_path / "first.jsonl"), "img": str(videos)}
    published = json.loads((ROOT / "config_release" / "msrvtt_qa.json").read_text())
    sets = {f"{split}_datasets": [part] for split in ("train", "val", "test")}
    changes = {
        **{"visual_model_cfg": str(write(tmp_path / "video.json", SMALL_VIDEO_MODEL))},
        **{"model_config": str(write(tmp_path / "text.json", SMALL_TEXT_MODEL))},
        **{"ans2label_path": str(questions.with_name("msrvtt_qa_train_ans2label.json"))},
        **{"e2e_weights_path": None, "random_init": 1, "crop_img_size": SMALL, "num_frm": 4},
        **{"frm_sampling_strategy": "segment", "augmentation": "none"},
        **{"max_n_example_per_group": 8, "train_batch_size": 8, "gradient_accumulation_steps": 1},
        **{"num_train_epochs": 60, "learning_rate": 1e-3, "num_valid": 2, "min_valid_steps": 10},
        **{"save_steps_ratio": 0.5, "num_workers": 1},
    }
    config = write(tmp_path / "config.json", {**published, **sets, **changes})
    output = tmp_path / "run"
    run(monkeypatch, "--config", config, "--output_dir", output, script=run_video_qa)
    scores = json.loads((output / "results_first/step_best_1_mean/scores.json").read_text())
    correct, total = scores["counts"]["overall"]
    assert total == num_questions
    assert scores["protocol"]["num_unanswerable_questions"] == num_unanswerable
    assert correct / (total - num_unanswerable) >= 0.95


def test_full_size_answers_from_a_folder_like_the_released_ones(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alpro.families.alpro.question_answering import build_question_answering_model

    monkeypatch.chdir(ROOT)
    folder = tmp_path / "public"
    config = ROOT / "config_release" / "msrvtt_qa.json"
    labels = str(questions.with_name("msrvtt_qa_train_ans2label.json"))
    flags = ["--config", str(config), "--output_dir", str(folder), "--ans2label_path", labels]
    resolved = load_config(QaConfig, flags)
    model = build_question_answering_model(resolved.config, resolved.architecture, num_labels=1500)
    release(folder, resolved, model)

    run(
        monkeypatch,
        *("--do_inference", 1, "--inference_split", "test", "--inference_model_step", "best"),
        *("--inference_txt_db", questions, "--inference_img_db", questions.parents[1] / "videos"),
        *("--inference_batch_size", 64, "--output_dir", folder, "--config", config),
        script=run_video_qa,
    )
    results = folder / "results_msrvtt10_qa" / "step_best_1_mean"
    records = json.loads((results / "results_all.json").read_text())
    assert [record["question_id"] for record in records] == list(range(234))
    assert all(len(record["top5"]) == 5 for record in records)
    scores = json.loads((results / "scores.json").read_text())
    counts = {kind: total for kind, (_, total) in scores["counts"].items()}
    assert counts == {"overall": 234, "what": 150, "who": 81, "how": 1, "when": 2}
    assert scores["protocol"]["num_videos"] == 10
    assert scores["protocol"]["num_unanswerable_questions"] == 14
