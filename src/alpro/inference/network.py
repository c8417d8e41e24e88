"""A trained network with its tokenizer, on a device, without gradients.

B: batch, T: frames, S: side of the frames in pixels, L: tokens, A: answers.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alpro.datasets.tokenization import load_tokenizer, tokenize
from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import autocast, usable_precision
from alpro.distributed.launch import choose_device
from alpro.errors import InputError, shortened
from alpro.experiment.weights import load_checkpoint
from alpro.inference.model_folder import StoredModel
from alpro.modeling.contracts import MATCH, TextFeatures, VideoFeatures
from alpro.tasks.question_answering.definition import MIN_NUM_LABELS

logger = logging.getLogger(__name__)


class Network:
    """Forward passes of a stored model, for texts and preprocessed frames."""

    def __init__(self, stored: StoredModel, *, device: str, precision: str) -> None:
        """Build the model, and fill it.

        Raises:
            InputError: the weights or the tokenizer do not fit, or there is no such device.
        """
        config, family = stored.config, stored.family
        sizes = {}
        if stored.labels is not None:
            sizes = {"num_labels": max(len(stored.labels), MIN_NUM_LABELS)}
        spec = family.load_task(config.TASK)
        module: Any = spec.build_model(config, stored.architecture, **sizes)
        load_checkpoint(module, stored.weights, layout=family.checkpoint)
        unused = family.checkpoint.never_used  # random where the file lacks them
        self.weights_sha256 = sha256_of_tensors(module.state_dict(), without=unused)
        self.device = choose_device(device, index=0)
        wanted = config.precision if precision == "auto" else precision
        self.precision = usable_precision(wanted, self.device)
        self.module = module.to(self.device).eval()
        # What it sees.
        self.preprocessing = family.preprocessing(config)
        self.num_frames: int = config.num_evaluated_frames
        self.max_txt_len: int = config.max_txt_len
        self._normalize = Normalize.of(self.preprocessing).to(self.device)
        self._tokenizer = load_tokenizer(
            stored.tokenizer_dir,
            vocab_size=family.vocab_size(stored.architecture),
            layout=family.tokenizer,
        )

    def encode_frames(self, frames: np.ndarray) -> VideoFeatures:
        """Encode (B, T, 3, S, S) uint8 frames."""
        side = self.preprocessing.size
        if frames.shape[1:] != (self.num_frames, 3, side, side):
            raise InputError(
                f"frames of shape {frames.shape}: expected (N, {self.num_frames}, 3, {side}, "
                f"{side}), preprocessed"
            )
        pixels = self._normalize(torch.from_numpy(frames).to(self.device))
        return self._run(self.module.encode_video, pixels)

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Encode B texts; longer ones than the model knows are cut, with a warning."""
        longest = self.max_txt_len
        ids, mask = tokenize(self._tokenizer, texts, max_length=longest)
        # Only a text of the greatest length may have been cut.
        for text, length in zip(texts, mask.sum(dim=1).tolist(), strict=True):
            if length == longest and len(self._tokenizer(text, verbose=False).input_ids) > longest:
                logger.warning("cut after %d tokens: %s", longest, shortened(text))
        return self._run(self.module.encode_text, ids.to(self.device), mask.to(self.device))

    def match(self, text: TextFeatures, video: VideoFeatures) -> np.ndarray:
        """(B,) float64 probabilities that row i of both match."""
        logits = self._run(self.module.match, text, video)
        return logits.double().softmax(dim=-1)[:, MATCH].cpu().numpy()

    def answer(self, text: TextFeatures, video: VideoFeatures, *, num_answers: int) -> Tensor:
        """(B, A) float64 probabilities of the first A answers."""
        logits = self._run(self.module.answer, text, video)
        return logits[:, :num_answers].double().softmax(dim=-1).cpu()

    def caption(self, video: VideoFeatures, *, max_length: int) -> list[str]:
        """B texts of at most so many tokens."""
        ids = self._run(partial(self.module.caption, max_length=max_length), video)
        texts: list[str] = self._tokenizer.batch_decode(ids.tolist(), skip_special_tokens=True)
        return texts

    @torch.inference_mode()
    def _run(self, forward: Callable[..., Any], *inputs: Any) -> Any:
        with autocast(self.precision, self.device):
            return forward(*inputs)


def sha256_of_tensors(state: Mapping[str, Tensor], *, without: Collection[str]) -> str:
    """SHA-256 of names and bytes, in whatever file they were, but not of names like `without`."""
    digest = hashlib.sha256()
    for name in sorted(state):
        if not any(fnmatchcase(name, pattern) for pattern in without):
            digest.update(name.encode())
            digest.update(state[name].cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
