"""Models that are loaded and used from Python: as their runs evaluate them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import CLIPModel

import alpro
from alpro.commands.main import main
from alpro.errors import InputError
from alpro.families.alpro.model import AlproForRetrieval
from alpro.families.clip_vip.config import CLIP_MEAN, CLIP_STD
from alpro.inference.export import export_model
from alpro.inference.model_folder import open_model
from alpro.modeling.contracts import VideoFeatures
from alpro.program import run_script
from alpro.training.state_dicts import read_state
from tasks import run_video_qa, run_video_retrieval
from tests.datasets.clips import write_clip
from tests.factories import BROKEN, VOCABULARY, FakeDecoder, TinyExperiment, caption_of
from tests.families.clip_vip.tiny_clip import write_clip as write_transformers_clip
from tests.question_factories import ANSWERS, QaExperiment

VIDEOS = [f"test{i}" for i in range(3)]
SCORES = "results_test/step_best_1_mean"
Train = Callable[[TinyExperiment], Path]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains an experiment over fake videos, and returns the folder of the run."""
    for place in ("alpro.experiment.data", "alpro.inference.frame_input"):
        monkeypatch.setattr(f"{place}.make_decoder", lambda *_, **__: FakeDecoder())

    def run(experiment: TinyExperiment) -> Path:
        is_qa = isinstance(experiment, QaExperiment)
        arguments = experiment.arguments(num_train_epochs=1)
        monkeypatch.setattr(sys, "argv", ["run", *arguments])
        run_script((run_video_qa if is_qa else run_video_retrieval).main)
        return experiment.root / "run"

    return run


@pytest.fixture
def run(tmp_path: Path, train: Train) -> Path:
    return train(TinyExperiment(tmp_path))


def test_similarities_and_matches_are_those_of_the_evaluation(run: Path) -> None:
    model = alpro.load(run, device="cpu")
    paths = [str(run.parent / f"videos/{name}.mp4") for name in VIDEOS]
    captions = [caption_of(i) for i in range(3)]
    similarity, match = model.similarity(captions, paths), model.match(captions, paths)
    records = json.loads((run / SCORES / "results.json").read_text())
    assert len(records) == 9
    temperature = float(model._network.module.temperature().detach())  # noqa: SLF001
    for record in records:
        row, column = record["txt_id"], VIDEOS.index(record["vid_id"])
        assert similarity[row, column] / temperature == pytest.approx(record["sim"], abs=1e-5)
        assert match[row, column] == pytest.approx(record["score"], abs=1e-6)
    assert similarity.shape == match.shape == (3, 3)


def test_embeddings_are_unit_vectors(run: Path) -> None:
    model = alpro.load(run, device="cpu")
    path = run.parent / "videos/test0.mp4"
    one, several = model.encode_video(path), model.encode_video([path] * 3, batch_size=2)
    assert (one.shape, several.shape) == ((model.embed_dim,), (3, model.embed_dim))
    assert np.allclose(several, one, atol=1e-6)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    texts = model.encode_text(["red", "a red ball"])
    assert np.allclose(texts[0], model.encode_text("red"), atol=1e-5)
    assert texts.dtype == one.dtype == np.float32
    tensors = alpro.load(run, device="cpu", output="torch")
    assert torch.equal(torch.as_tensor(tensors.encode_video(path)), torch.as_tensor(one))


def test_answers_are_those_of_the_evaluation(tmp_path: Path, train: Train) -> None:
    run = train(QaExperiment(tmp_path))
    model = alpro.load(run, device="cpu")
    records = json.loads((run / SCORES / "results_all.json").read_text())
    for record in records[:4]:
        data = record["data"]
        answers = model.answer(data["question"], tmp_path / f"videos/{data['vid_id']}.mp4", top=3)
        assert [answer for answer, _ in answers] == [one["answer"] for one in record["top5"][:3]]
        assert answers[0][1] >= answers[1][1]
    everything = model.answer("what is it", tmp_path / "videos/test0.mp4", top=100)
    assert sorted(answer for answer, _ in everything) == sorted(ANSWERS)
    assert sum(probability for _, probability in everything) == pytest.approx(1)
    with pytest.raises(InputError, match="is none that embeds videos. Load one that was finetuned"):
        model.encode_video(tmp_path / "videos/test0.mp4")


def test_a_model_folder_holds_all_that_the_model_needs(run: Path, tmp_path: Path) -> None:
    assert main(["export-model", str(run), "--output", str(tmp_path / "model")]) == 0
    folder = tmp_path / "model"
    names = {"README.md", "config.json", "model.safetensors", "vocab.txt"}
    assert {path.name for path in folder.iterdir()} >= names
    config = json.loads((folder / "config.json").read_text())
    assert config["sha256"].keys() == {path.name for path in folder.iterdir()} - {"config.json"}
    assert str(tmp_path) not in json.dumps(config["config"])
    assert "r1" in (folder / "README.md").read_text()
    # Nothing of the run is needed any more.
    before = alpro.load(run, device="cpu")
    path = tmp_path / "videos/test0.mp4"
    expected = before.encode_video(path)
    run.rename(tmp_path / "gone")
    (tmp_path / "tokenizer").rename(tmp_path / "gone_too")
    model = alpro.load(folder, device="cpu")
    assert np.array_equal(model.encode_video(path), expected)
    assert np.array_equal(model.encode_text("red"), before.encode_text("red"))
    assert model.can_match


def test_keys_of_checkpoints_take_a_model_folder(run: Path, tmp_path: Path) -> None:
    folder = export_model(run, tmp_path / "model")
    for name in ("best", "folder"):
        weights = run / "ckpt/model_step_best.pt" if name == "best" else folder
        config = ["--config", str(tmp_path / "experiment.json"), "--output_dir", str(run)]
        given = ["--inference_txt_db", str(tmp_path / "txt/test.jsonl")]
        given += ["--inference_img_db", str(tmp_path / "videos"), "--do_inference", "1"]
        assert main(["retrieval", *config, *given, "--e2e_weights_path", str(weights)]) == 0
    results = [path.read_bytes() for path in sorted(run.glob("results_test/*/results.json"))]
    assert len(results) == 2
    assert results[0] == results[1]


def test_altered_and_missing_files_are_refused(run: Path, tmp_path: Path) -> None:
    folder = export_model(run, tmp_path / "model")
    with pytest.raises(InputError, match="not empty"):
        export_model(run, folder)
    with pytest.raises(InputError, match="no such checkpoint"):
        export_model(run, tmp_path / "other", step="7")
    vocabulary = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(f"{vocabulary}more\n")
    with pytest.raises(InputError, match=r"vocab\.txt: is not the file .*SHA-256 differs"):
        alpro.load(folder)
    (folder / "vocab.txt").write_text(vocabulary)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        open_model(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither the output folder of a run"):
        alpro.load(tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        alpro.load(tmp_path / "nowhere")


def test_bad_input_names_the_remedy(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = alpro.load(run, device="cpu")
    (tmp_path / "broken.mp4").write_text(BROKEN)
    with pytest.raises(InputError, match=r"broken\.mp4: made to be unreadable"):
        model.encode_video(tmp_path / "broken.mp4")
    with pytest.raises(InputError, match="an empty list"):
        model.encode_text([])
    with pytest.raises(InputError, match=r"expected \(T, H, W, 3\) uint8"):
        model.encode_video(np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"expected \(N, \d, 3, \d+, \d+\), preprocessed"):
        model.encode_frames(np.zeros((1, 2, 3, 8, 8), np.uint8))
    with pytest.raises(InputError, match="is none that answers questions"):
        model.answer("who", tmp_path / "videos/test0.mp4")
    model.encode_text("red " * 600)
    assert "cut after 12 tokens: red red" in caplog.text


def test_the_package_is_imported_without_pytorch() -> None:
    code = "import sys, alpro; assert 'torch' not in sys.modules; print(alpro.load.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "load\n"), done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = alpro.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", ["README.md", "docs/guides/use-a-model.md"])
def test_python_of_the_pages_runs(run: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.undo()  # real videos
    monkeypatch.chdir(run.parent)
    Path("output").mkdir()
    run.rename("output/my_run")
    for name in ("clip.mp4", "long.mp4"):
        write_clip(Path(name), num_frames=80)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["model"].can_match
    assert page == "README.md" or (names["start"], names["end"]) == (6.0, 10.0)


def test_parts_of_a_file_and_frames_of_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # real videos
    model = alpro.load(run, device="cpu")
    clip = write_clip(run / "clip.mp4", num_frames=16)  # 2 s
    whole, half = model.encode_video(clip), model.encode_video(clip, start=1.0, end=2.0)
    assert np.allclose(model.encode_video(clip, start=0.0), whole, atol=1e-5)
    assert not np.allclose(half, whole, atol=1e-5)
    greys = np.broadcast_to(np.uint8(12), (16, 64, 64, 3))
    assert model.encode_video(np.stack([greys, greys])).shape == (2, model.embed_dim)


def test_a_run_and_its_folder_have_one_fingerprint(run: Path, tmp_path: Path) -> None:
    export_model(run, tmp_path / "model")
    first, second = (alpro.load(path, device="cpu") for path in (run, tmp_path / "model"))
    assert first.fingerprint == second.fingerprint


def test_altered_weights_are_refused_by_config_keys(run: Path, tmp_path: Path) -> None:
    export_model(run, tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    for read in (lambda: read_state(weights, [""]), lambda: alpro.load(weights.parent)):
        with pytest.raises(InputError, match="SHA-256 differs"):
            read()


def test_a_matcher_that_was_not_trained_to_match_does_not(tmp_path: Path, train: Train) -> None:
    experiment = TinyExperiment(tmp_path)
    experiment.values["use_itm"] = 0
    model = alpro.load(train(experiment), device="cpu")
    assert model.can_embed
    assert not model.can_match
    with pytest.raises(InputError, match="finetuned for retrieval, with use_itm"):
        model.match(["red"], [tmp_path / "videos/test0.mp4"])


def test_a_model_that_describes_videos_has_captions(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "videos/test0.mp4"
    with pytest.raises(InputError, match="is none that describes videos"):
        alpro.load(run, device="cpu").caption(path)

    def describe(_model: object, video: VideoFeatures, *, max_length: int) -> torch.Tensor:
        words = ["[CLS]", "a", "red", "ball", "[SEP]", "[PAD]"][:max_length]
        return torch.tensor([[VOCABULARY.index(word) for word in words]] * len(video.embedding))

    monkeypatch.setattr(AlproForRetrieval, "caption", describe, raising=False)
    model = alpro.load(run, device="cpu")
    assert model.can_caption
    assert model.caption(path) == "a red ball"
    assert model.caption([path] * 9, max_length=3) == ["a red"] * 9


def test_a_part_must_begin_within_the_video(run: Path, tmp_path: Path) -> None:
    model, clip = alpro.load(run, device="cpu"), write_clip(tmp_path / "real.mp4", num_frames=16)
    part = model.encode_video([clip, clip], start=0.5, end=1.5)
    assert np.array_equal(part[0], part[1])
    with pytest.raises(InputError, match="real.mp4: ends after 2 s, before the start at 2.5 s"):
        model.encode_video(clip, start=2.5)


def test_a_clip_of_transformers_is_a_model_as_it_stands(tmp_path: Path) -> None:
    folder = write_transformers_clip(tmp_path / "clip")
    model, clip = alpro.load(folder, device="cpu"), CLIPModel.from_pretrained(folder).eval()
    assert (model.family, model.num_frames, model.embed_dim) == ("clip_vip", 12, 8)
    assert model.can_embed
    assert not model.can_match
    # The mean of the frames' vectors, and the vector of a text with CLIP's own ids.
    pixels = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    chosen = np.linspace(0, 19, 12).astype(int)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
    frames = (torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2) / 255 - mean) / std
    ids = torch.tensor([[49406, 320, 736, 3240, 49407]])
    with torch.inference_mode():
        hidden = clip.vision_model(frames).pooler_output
        expected = normalize(normalize(clip.visual_projection(hidden), dim=-1).mean(0), dim=0)
        text = clip.text_projection(clip.text_model(ids).pooler_output)[0]
    assert np.allclose(model.encode_video(pixels), expected, atol=1e-5)
    words = model._network._tokenizer.decode([320, 736, 3240])  # noqa: SLF001
    assert np.allclose(model.encode_text(words), normalize(text, dim=0), atol=1e-5)
    assert alpro.load(folder, device="cpu").fingerprint == model.fingerprint
    # Nothing may be missing.
    (folder / "vocab.json").unlink()
    with pytest.raises(InputError, match="vocab.json"):
        alpro.load(folder, device="cpu")


def test_a_run_of_pretraining_is_a_start_and_no_model_to_use(run: Path) -> None:
    args = run / "log/args.json"
    script = {"script": "src/pretrain/run_pretrain_sparse.py"}
    args.write_text(json.dumps(json.loads(args.read_text()) | script))
    with pytest.raises(InputError, match="of pretraining, .* Finetune from it"):
        alpro.load(run, device="cpu")
