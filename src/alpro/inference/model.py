"""Trained models in a few lines of Python: `load`, then `Model`.

Shapes: ``N`` videos, ``P`` texts, ``T`` frames, ``H``, ``W`` pixels, ``S`` side of the squares that
the model sees, ``E`` width of the embeddings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from alpro.datasets.decoding.windows import WindowPlan
from alpro.datasets.frame_sampling import evaluation_sampling
from alpro.errors import InputError
from alpro.evaluation.encoding import chunks
from alpro.inference.frame_input import BATCH_SIZE, FrameInput, Video
from alpro.inference.model_folder import StoredModel, open_model
from alpro.inference.network import Network
from alpro.modeling.contracts import AnswerClassifier, Captioner, DualEncoder, Matcher

Array: TypeAlias = "np.ndarray | Tensor"
CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "output": ("numpy", "torch"),
}


def load(
    folder: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    output: Literal["numpy", "torch"] = "numpy",
) -> Model:
    """Load a trained model, offline.

    Args:
        folder: a model folder (`alpro export-model`), the output folder of a run, whose best
            checkpoint is taken, or a folder of CLIP in the layout of transformers.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
        precision: ``auto`` (as the model was trained), ``fp32``, ``bf16`` or ``fp16``.
        output: type of the arrays that the model returns; tensors are on the CPU.

    Raises:
        InputError: there is no model, a file of it is missing or altered, or a choice is unknown.

    >>> model = alpro.load("model")
    >>> model.can_embed, model.can_match, model.can_answer
    (True, True, False)
    """
    for name, value in {"device": device, "precision": precision, "output": output}.items():
        if value not in CHOICES[name]:
            raise InputError(f"{name}={value!r}: must be one of {', '.join(CHOICES[name])}")
    return Model(open_model(folder), device=device, precision=precision, output=output)


class Model:
    """A trained model, in evaluation mode; see `load`.

    Frames are chosen as in the evaluation of its run. Embeddings are float32 vectors of length 1:
    their products are cosine similarities.
    """

    def __init__(
        self, stored: StoredModel, *, device: str, precision: str, output: str = "numpy"
    ) -> None:
        config = stored.config
        self._config, self._output, self._labels = config, output, stored.labels
        self._network = Network(stored, device=device, precision=precision)
        self.family: str = config.family
        self.device, self.precision = self._network.device, self._network.precision
        self.num_frames = self._network.num_frames
        """T that the model sees of a video."""
        self.embed_dim: int = self._network.module.embed_dim
        """E."""
        self.preprocessing = self._network.preprocessing
        self._input = FrameInput(
            num_frames=self.num_frames,
            sampling=evaluation_sampling(config.frm_sampling_strategy),
            sample_rate=config.sample_rate,
            preprocessing=self.preprocessing,
        )
        sees = [
            *(self.family, self._network.weights_sha256, config.max_txt_len, self.num_frames),
            *(self._input.sampling, config.sample_rate, asdict(self.preprocessing)),
            {name: asdict(one) for name, one in stored.architecture.items()},
        ]
        self.fingerprint = hashlib.sha256(json.dumps(sees, sort_keys=True).encode()).hexdigest()
        """SHA-256 of the weights and of all settings that embeddings depend on."""

    @property
    def can_embed(self) -> bool:
        """Whether it embeds videos and texts; answers leave the embeddings behind."""
        return isinstance(self._network.module, DualEncoder) and not self.can_answer

    @property
    def can_match(self) -> bool:
        """Whether it was trained to score pairs of a text and a video together."""
        is_matcher = isinstance(self._network.module, Matcher) and not self.can_answer
        return is_matcher and bool(self._config.use_itm)

    @property
    def can_answer(self) -> bool:
        """Whether it answers questions about videos."""
        return isinstance(self._network.module, AnswerClassifier) and self._labels is not None

    @property
    def can_caption(self) -> bool:
        """Whether it describes videos."""
        return isinstance(self._network.module, Captioner)

    def encode_video(
        self,
        video: Video | Sequence[Video],
        *,
        start: float | None = None,
        end: float | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Array:
        """Embed a video, or several.

        Args:
            video: a file or (T, H, W, 3) frames; or a list of these.
            start: seconds after the first frame where to begin, of files.
            end: seconds where to end; None for the end of the video.
            batch_size: videos encoded at once.

        Returns:
            (E,) for one video, (N, E) for a list.

        Raises:
            InputError: a file cannot be read, or an array has another shape.

        >>> model.encode_video("clip.mp4").shape
        (16,)
        >>> model.encode_video(["clip.mp4", "clip.mp4"], start=0.5, end=1.5).shape
        (2, 16)
        """
        self._require(self.can_embed, "embeds videos", "retrieval")
        videos, is_one = _listed(video)
        batches = self._input.batches(videos, start=start, end=end, size=batch_size)
        return self._given(np.concatenate([*map(self.encode_frames, batches)]), is_one=is_one)

    def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        """Embed preprocessed frames, such as those of `read_windows`.

        (N, T, 3, S, S) uint8 to (N, E) float32.
        """
        return self._network.encode_frames(frames).embedding.float().cpu().numpy()

    def encode_text(self, text: str | Sequence[str], *, batch_size: int = 64) -> Array:
        """Embed a text, or several; longer ones than the model knows are cut, with a warning.

        Returns:
            (E,) for one text, (P, E) for a list.

        >>> model.encode_text(["a red ball", "a green box"]).shape
        (2, 16)
        """
        self._require(self.can_embed, "embeds texts", "retrieval")
        texts, is_one = _listed(text)
        parts = [
            self._network.encode_texts([texts[i] for i in piece]).embedding.float().cpu().numpy()
            for piece in chunks(len(texts), size=batch_size)
        ]
        return self._given(np.concatenate(parts), is_one=is_one)

    def similarity(self, texts: str | Sequence[str], videos: Video | Sequence[Video]) -> Array:
        """Compare each text with each video: (P, N) cosine similarities.

        >>> model.similarity(["a red ball", "a green box"], ["clip.mp4"]).shape
        (2, 1)
        """
        (texts, _), (videos, _) = _listed(texts), _listed(videos)
        of_texts, of_videos = self.encode_text(texts), self.encode_video(videos)
        return self._given(np.asarray(of_texts) @ np.asarray(of_videos).T, is_one=False)

    def match(self, texts: str | Sequence[str], videos: Video | Sequence[Video]) -> Array:
        """Score each pair by the fusion encoder: (P, N) probabilities that they match.

        Better than `similarity` where order and details count, and slower: it looks at each pair.

        >>> bool((model.match(["a red ball"], ["clip.mp4"]) > 0).all())
        True
        """
        self._require(self.can_match, "matches texts and videos", "retrieval, with use_itm")
        (texts, _), (videos, _) = _listed(texts), _listed(videos)
        columns = [self.match_frames(texts, frames) for frames in self._input.batches(videos)]
        return self._given(np.concatenate(columns, axis=1), is_one=False)

    def match_frames(
        self, texts: Sequence[str], frames: np.ndarray, *, batch_size: int = 64
    ) -> np.ndarray:
        """Score texts and a few videos' preprocessed frames, as of `read_windows`; see `match`.

        (N, T, 3, S, S) uint8 frames to (P, N) float64 probabilities.
        """
        self._require(self.can_match, "matches texts and videos", "retrieval, with use_itm")
        scores = np.empty((len(texts), len(frames)))
        videos = [self._network.encode_frames(one[None]) for one in frames]
        for piece in chunks(len(texts), size=batch_size):
            encoded = self._network.encode_texts([texts[i] for i in piece])
            for column, features in enumerate(videos):
                repeated = features.expand(len(piece))
                scores[piece, column] = self._network.match(encoded, repeated)
        return scores

    def answer(
        self,
        question: str,
        video: Video,
        *,
        start: float | None = None,
        end: float | None = None,
        top: int = 5,
    ) -> list[tuple[str, float]]:
        """Answer a question: the most probable answers with their probabilities, best first.

        `start` and `end` are seconds of the video, as of `encode_video`.

        >>> answers = alpro.load("answering_model").answer("what is it", "clip.mp4", top=2)
        >>> [type(answer).__name__ for answer, probability in answers]
        ['str', 'str']
        """
        self._require(self.can_answer, "answers questions", "question answering")
        assert self._labels is not None
        (frames,) = self._input.batches([video], start=start, end=end)
        text, features = self._network.encode_texts([question]), self._network.encode_frames(frames)
        probabilities = self._network.answer(text, features, num_answers=len(self._labels))[0]
        best = probabilities.topk(min(top, len(self._labels)))
        ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self._labels[label], probability) for label, probability in ranked]

    def caption(
        self,
        video: Video | Sequence[Video],
        *,
        start: float | None = None,
        end: float | None = None,
        max_length: int = 30,
    ) -> str | list[str]:
        """Describe a video, or each of a list, in at most `max_length` tokens."""
        self._require(self.can_caption, "describes videos", "captioning")
        videos, is_one = _listed(video)
        texts: list[str] = []
        for frames in self._input.batches(videos, start=start, end=end):
            features = self._network.encode_frames(frames)
            texts += self._network.caption(features, max_length=max_length)
        return texts[0] if is_one else texts

    def window_plan(self, **options: Any) -> WindowPlan:
        """Make a plan for `read_windows` with this model's frames; `options` are of the plan."""
        return self._input.window_plan(**options)

    def _given(self, values: np.ndarray, *, is_one: bool) -> Array:
        values = values[0] if is_one else values
        return torch.from_numpy(values) if self._output == "torch" else values

    def _require(self, can: bool, what: str, task: str) -> None:
        if not can:
            own = self._config.TASK.replace("_", " ")
            raise InputError(
                f"this model, of {self.family} for {own}, is none that {what}. Load one that was "
                f"finetuned for {task}."
            )


def _listed(given: Any) -> tuple[list[Any], bool]:
    """A list of what is given, and whether it was a single one."""
    is_one = isinstance(given, str | Path) or (isinstance(given, np.ndarray) and given.ndim < 5)
    items = [given] if is_one else list(given)
    if not items:
        raise InputError("an empty list: give at least one")
    return items, is_one
