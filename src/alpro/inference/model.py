"""Trained models in a few lines of Python: `load`, then `Model`.

Shapes: ``N`` videos, ``P`` texts, ``T`` frames, ``H``, ``W`` pixels, ``S`` side of the squares that
the model sees, ``E`` width of the embeddings.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from alpro.datasets.decoding import VideoReadError, make_decoder
from alpro.datasets.decoding.windows import MEGABYTES, SECONDS_PER_REQUEST, WindowPlan, WindowReader
from alpro.datasets.frame_sampling import evaluation_sampling, frame_indices, select_frames
from alpro.datasets.tokenization import load_tokenizer, tokenize
from alpro.datasets.transforms.normalize import Normalize
from alpro.datasets.transforms.preprocessing import preprocess_frames
from alpro.distributed.engine import autocast, usable_precision
from alpro.distributed.launch import choose_device
from alpro.errors import InputError, shortened
from alpro.evaluation.encoding import chunks
from alpro.experiment.weights import load_checkpoint
from alpro.inference.model_folder import StoredModel, open_model
from alpro.modeling.contracts import (
    MATCH,
    AnswerClassifier,
    DualEncoder,
    Matcher,
    TextFeatures,
    VideoFeatures,
)
from alpro.tasks.question_answering.definition import MIN_NUM_LABELS

logger = logging.getLogger(__name__)

Video: TypeAlias = "str | Path | np.ndarray"
"""A file, or (T, H, W, 3) uint8 RGB frames."""
Array: TypeAlias = "np.ndarray | Tensor"
BATCH_SIZE = 8
SILENT = 8  # batches without a progress bar


def load(
    folder: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    output: Literal["numpy", "torch"] = "numpy",
) -> Model:
    """Load a trained model, offline.

    Args:
        folder: a model folder (`alpro export-model`), or the output folder of a run, whose best
            checkpoint is taken.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
        precision: ``auto`` (as the model was trained), ``fp32``, ``bf16`` or ``fp16``.
        output: type of the arrays that the model returns; tensors are on the CPU.

    Raises:
        InputError: there is no model, or a file of it is missing, altered or does not fit.
    """
    return Model(open_model(folder), device=device, precision=precision, output=output)


class Model:
    """A trained model, in evaluation mode; see `load`.

    Frames are chosen as in the evaluation of its run. Embeddings are float32 vectors of length 1:
    their products are cosine similarities.
    """

    def __init__(
        self, stored: StoredModel, *, device: str, precision: str, output: str = "numpy"
    ) -> None:
        config, family = stored.config, stored.family
        self._config, self._output = config, output
        self.family: str = config.family
        self.num_frames: int = config.num_evaluated_frames
        """T that the model sees of a video."""
        self.preprocessing = family.preprocessing(config)
        # Build the model, and fill it.
        spec = family.load_task(config.TASK)
        sizes = {}
        if stored.labels is not None:
            sizes = {"num_labels": max(len(stored.labels), MIN_NUM_LABELS)}
        model: Any = spec.build_model(config, stored.architecture, **sizes)
        load_checkpoint(model, stored.weights, layout=family.checkpoint)
        self.device = choose_device(device, index=0)
        self.precision = usable_precision(
            config.precision if precision == "auto" else precision, self.device
        )
        self._model = model.to(self.device).eval()
        self.embed_dim: int = model.embed_dim
        """E."""
        # Everything around it.
        self._labels = stored.labels
        self._tokenizer = load_tokenizer(
            stored.tokenizer_dir,
            vocab_size=family.vocab_size(stored.architecture),
            layout=family.tokenizer,
        )
        self._normalize = Normalize.of(self.preprocessing).to(self.device)
        self._decoder = make_decoder("auto", seconds=SECONDS_PER_REQUEST, megabytes=MEGABYTES)
        self._sampling = evaluation_sampling(config.frm_sampling_strategy)
        pixels = asdict(self.preprocessing)
        sees = [self.family, self._sampling, self.num_frames, pixels, config.max_txt_len]
        self.fingerprint = hashlib.sha256(
            f"{stored.sha256} {json.dumps(sees, sort_keys=True)}".encode()
        ).hexdigest()
        """SHA-256 of the weights and of all settings that embeddings depend on."""

    @property
    def can_embed(self) -> bool:
        """Whether it embeds videos and texts; answers leave the embeddings behind."""
        return isinstance(self._model, DualEncoder) and not self.can_answer

    @property
    def can_match(self) -> bool:
        """Whether it was trained to score pairs of a text and a video together."""
        is_matcher = isinstance(self._model, Matcher) and not self.can_answer
        return is_matcher and bool(self._config.use_itm)

    @property
    def can_answer(self) -> bool:
        """Whether it answers questions about videos."""
        return isinstance(self._model, AnswerClassifier) and self._labels is not None

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
        """
        self._require(self.can_embed, "embeds videos", "retrieval")
        videos, is_one = _listed(video)
        parts = [
            self.encode_frames(self._frames([videos[i] for i in piece], start=start, end=end))
            for piece in _shown(chunks(len(videos), size=batch_size), "encoding videos")
        ]
        return self._given(np.concatenate(parts), is_one=is_one)

    @torch.inference_mode()
    def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        """Embed preprocessed frames, such as those of `read_windows`.

        (N, T, 3, S, S) uint8 to (N, E) float32.
        """
        return self._encode_frames(frames).embedding.float().cpu().numpy()

    def encode_text(self, text: str | Sequence[str], *, batch_size: int = 64) -> Array:
        """Embed a text, or several; longer ones than the model knows are cut, with a warning.

        Returns:
            (E,) for one text, (P, E) for a list.
        """
        self._require(self.can_embed, "embeds texts", "retrieval")
        texts, is_one = _listed(text)
        parts = [
            self._encode_texts([texts[i] for i in piece]).embedding.float().cpu().numpy()
            for piece in chunks(len(texts), size=batch_size)
        ]
        return self._given(np.concatenate(parts), is_one=is_one)

    def similarity(self, texts: Sequence[str], videos: Sequence[Video]) -> Array:
        """Compare each text with each video: (P, N) cosine similarities."""
        of_texts, of_videos = self.encode_text(list(texts)), self.encode_video(list(videos))
        return self._given(np.asarray(of_texts) @ np.asarray(of_videos).T, is_one=False)

    def match(self, texts: Sequence[str], videos: Sequence[Video]) -> Array:
        """Score each pair by the fusion encoder: (P, N) probabilities that they match.

        Better than `similarity` where order and details count, and slower: it looks at each pair.
        """
        self._require(self.can_match, "matches texts and videos", "retrieval, with use_itm")
        columns = [
            self.match_frames(texts, self._frames([videos[i] for i in piece]))
            for piece in _shown(chunks(len(videos), size=BATCH_SIZE), "matching videos")
        ]
        return self._given(np.concatenate(columns, axis=1), is_one=False)

    @torch.inference_mode()
    def match_frames(
        self, texts: Sequence[str], frames: np.ndarray, *, batch_size: int = 64
    ) -> np.ndarray:
        """Score texts and a few videos' preprocessed frames, as of `read_windows`; see `match`.

        (N, T, 3, S, S) uint8 frames to (P, N) float64 probabilities.
        """
        self._require(self.can_match, "matches texts and videos", "retrieval, with use_itm")
        scores = np.empty((len(texts), len(frames)))
        videos = [self._encode_frames(one[None]) for one in frames]
        for piece in chunks(len(texts), size=batch_size):
            encoded = self._encode_texts([texts[i] for i in piece])
            for column, features in enumerate(videos):
                with autocast(self.precision, self.device):
                    logits = self._model.match(encoded, features.expand(len(piece)))
                probabilities = logits.double().softmax(dim=-1)[:, MATCH]
                scores[piece, column] = probabilities.cpu().numpy()
        return scores

    @torch.inference_mode()
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
        """
        self._require(self.can_answer, "answers questions", "question answering")
        assert self._labels is not None
        frames = self._frames([video], start=start, end=end)
        text, features = self._encode_texts([question]), self._encode_frames(frames)
        with autocast(self.precision, self.device):
            logits = self._model.answer(text, features)[0, : len(self._labels)]
        best = logits.double().softmax(dim=0).topk(min(top, len(self._labels)))
        ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self._labels[label], probability) for label, probability in ranked]

    def window_plan(self, **options: Any) -> WindowPlan:
        """Make a plan for `read_windows` with this model's frames; `options` are of the plan."""
        return WindowPlan(
            preprocessing=self.preprocessing,
            num_frames=self.num_frames,
            sampling=self._sampling,
            **options,
        )

    def _frames(
        self, videos: Sequence[Video], *, start: float | None = None, end: float | None = None
    ) -> np.ndarray:
        """(N, T, 3, S, S) uint8 frames of videos."""
        with closing(WindowReader()) as reader:  # starts a process if there is a part to read
            return np.stack([self._frames_of(one, start, end, reader) for one in videos])

    def _frames_of(
        self, video: Video, start: float | None, end: float | None, reader: WindowReader
    ) -> np.ndarray:
        if isinstance(video, np.ndarray):
            return self._frames_of_array(video)
        select = partial(
            select_frames,
            strategy=self._sampling,
            num_frames=self.num_frames,
            num_clips=1,
            sample_rate=self._config.sample_rate,
            rng=None,
        )
        try:
            if start is None and end is None:
                return self._decoder.read(Path(video), select, preprocessing=self.preprocessing)
            part = {"start": start or 0.0, "end": math.inf if end is None else end}
            window = next(reader.read(video, plan=self.window_plan(window=math.inf, **part)))
        except (VideoReadError, ValueError) as error:
            raise InputError(f"{video}: {error}") from error
        if window.end <= window.start:
            raise InputError(
                f"{video}: ends after {window.end:g} s, before the start at {window.start:g} s"
            )
        return window.frames

    def _frames_of_array(self, frames: np.ndarray) -> np.ndarray:
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
            raise InputError(
                f"frames of shape {frames.shape} and type {frames.dtype}: expected (T, H, W, 3) "
                "uint8, RGB"
            )
        chosen = frame_indices(
            self._sampling, num_video_frames=len(frames), num_frames=self.num_frames, rng=None
        )
        return preprocess_frames(frames[chosen].transpose(0, 3, 1, 2), self.preprocessing)

    def _encode_frames(self, frames: np.ndarray) -> VideoFeatures:
        side = self.preprocessing.size
        if frames.shape[1:] != (self.num_frames, 3, side, side):
            raise InputError(
                f"frames of shape {frames.shape}: expected (N, {self.num_frames}, 3, {side}, "
                f"{side}), preprocessed"
            )
        with autocast(self.precision, self.device):
            return self._model.encode_video(
                self._normalize(torch.from_numpy(frames).to(self.device))
            )

    @torch.inference_mode()
    def _encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        longest = self._config.max_txt_len
        ids, mask = tokenize(self._tokenizer, texts, max_length=longest)
        # Only a text of the greatest length may have been cut.
        for text, length in zip(texts, mask.sum(dim=1).tolist(), strict=True):
            if length == longest and len(self._tokenizer(text)["input_ids"]) > longest:
                logger.warning("cut after %d tokens: %s", longest, shortened(text))
        with autocast(self.precision, self.device):
            return self._model.encode_text(ids.to(self.device), mask.to(self.device))

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


def _shown(items: Sequence[Any], title: str) -> Iterator[Any]:
    """Items with a progress bar on a terminal, if they take long."""
    hidden = len(items) <= SILENT or not sys.stderr.isatty()
    yield from tqdm(items, desc=title, disable=hidden, leave=False)
