"""Models that are loaded and used from Python: as their runs evaluate them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import alpro
from alpro.datasets.decoding.windows import WindowReader
from alpro.errors import InputError
from alpro.families.alpro.model import AlproForRetrieval
from alpro.modeling.contracts import VideoFeatures
from tests.datasets.clips import write_clip
from tests.factories import BROKEN, VOCABULARY, TinyExperiment, caption_of
from tests.inference.conftest import Train
from tests.question_factories import ANSWERS, QaExperiment

VIDEOS = [f"test{i}" for i in range(3)]
SCORES = "results_test/step_best_1_mean"


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
    with pytest.raises(InputError, match="start and end are seconds of a file"):
        model.encode_video(np.zeros((4, 8, 8, 3), np.uint8), end=1.0)


def test_all_parts_of_a_call_are_read_in_one_process(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[WindowReader] = []

    class Counted(WindowReader):
        def __init__(self) -> None:
            super().__init__()
            readers.append(self)

    monkeypatch.setattr("alpro.inference.frame_input.WindowReader", Counted)
    model, clip = alpro.load(run, device="cpu"), write_clip(tmp_path / "real.mp4", num_frames=16)
    assert len(model.encode_video([clip] * 5, start=0.5, batch_size=2)) == 5
    assert len(readers) == 1


def test_single_texts_and_videos_are_not_taken_apart(run: Path) -> None:
    model, path = alpro.load(run, device="cpu"), run.parent / "videos/test0.mp4"
    for compare in (model.similarity, model.match):
        assert np.array_equal(compare("a red ball", path), compare(["a red ball"], [path]))


def test_arrays_are_sampled_like_files(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = run / "log/args.json"
    values = json.loads(arguments.read_text())
    values |= {"frm_sampling_strategy": "interval", "sample_rate": 3}
    arguments.write_text(json.dumps(values))
    monkeypatch.undo()  # real videos
    model, pixels = alpro.load(run, device="cpu"), np.zeros((16, 8, 8, 3), np.uint8)
    pixels += np.arange(16, dtype=np.uint8)[:, None, None, None] * 10
    (frames,) = model._input.batches([pixels])  # noqa: SLF001
    levels = frames[0, :, 0, 0, 0].astype(int)
    assert np.diff(levels).tolist() == [30]
