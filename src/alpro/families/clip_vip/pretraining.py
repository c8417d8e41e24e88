"""Post-pretraining of CLIP-ViP (section 3.3): videos, subtitles, middle frames and their captions.

Validation is retrieval, as in the original.

B: samples of this rank, N: those with a caption, G: samples of all ranks, T: frames, S: image side,
L: text tokens, E: width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from statistics import fmean
from typing import Any

from torch import Tensor, nn

from alpro.datasets.annotations import CaptionRow
from alpro.distributed.engine import Engine
from alpro.errors import InputError
from alpro.evaluation.encoding import encode_clips
from alpro.evaluation.evaluation_set import EvaluationSet, Progress
from alpro.experiment.experiment import Experiment, TaskDefinition
from alpro.families.clip_vip.clip_data import WITH_FRAME, ClipBatch, ClipData
from alpro.families.clip_vip.config import LOSS_SPECS, RETRIEVAL_LOSSES, loss_parameters
from alpro.families.clip_vip.family import build_model
from alpro.families.clip_vip.losses import GlobalFeatures, global_loss
from alpro.families.family import TaskSpec
from alpro.modeling.contracts import DualEncoder
from alpro.modeling.grad_cache import grad_cached
from alpro.tasks.retrieval.evaluation import RetrievalEvaluator
from alpro.training.objective import Objective, TrainingPlan


class PostPretrainingObjective(Objective):
    """One of the losses of CLIP-ViP over the global batch; validation is retrieval."""

    model: Any  # an nn.Module that is a DualEncoder

    def __init__(
        self,
        model: DualEncoder,
        *,
        engine: Engine,
        normalize: nn.Module,  # uint8 frames to the model's input
        evaluator: RetrievalEvaluator,
        loss_name: str,  # key of `LOSS_SPECS`
        loss_parameters: Mapping[str, Any],
        grad_cache_size: int = 0,  # items per forward pass of training, 0 for all at once
    ) -> None:
        super().__init__()
        self.model = model
        self._engine = engine
        self._normalize = normalize
        self._evaluator = evaluator
        self._needed = LOSS_SPECS[loss_name].features
        self._loss = global_loss(loss_name, loss_parameters)
        self._grad_cache_size = grad_cache_size

    def forward(self, batch: ClipBatch) -> dict[str, Tensor]:
        """``loss`` of the samples of all ranks, the same on every rank."""
        self.model.clamp_temperature()
        # What the loss does not need is not encoded.
        video = self._encode_videos(batch.frames)
        text = self._encode_texts(batch.text_ids, batch.text_mask)
        captioned = batch.has_caption.nonzero().squeeze(1)  # (N,)
        # Without captions, empty rows take part in the gather and in its backward pass.
        caption, image = text[:0], video[:0]
        if len(captioned) and "captions" in self._needed:
            caption = self._encode_texts(
                batch.caption_ids[captioned], batch.caption_mask[captioned]
            )
        if len(captioned) and "images" in self._needed:
            image = self._encode_videos(batch.image[captioned].unsqueeze(1))
        encoded = {"videos": video, "subtitles": text, "captions": caption, "images": image}
        needed = {name: encoded[name] for name in self._needed}
        features = self._gathered(needed, captioned)
        return {"loss": self._loss(features, self.model.temperature())}

    def _gathered(self, features: Mapping[str, Tensor], captioned: Tensor) -> GlobalFeatures:
        """Features of all ranks, from this rank's (B, E) and (N, E)."""
        # Gradients of the gathers are summed over the ranks and those of weights are averaged: as
        # the ranks' losses are equal, this gives the gradients of one process with all samples.
        parts = self._engine.gather_objects((len(features["videos"]), captioned.tolist()))
        num_samples = [num for num, _ in parts]
        num_captions = [len(own) for _, own in parts]
        rows = [
            start + row
            for start, (_, own) in zip(accumulate(num_samples, initial=0), parts, strict=False)
            for row in own
        ]
        counts = {name: num_samples for name in ("videos", "subtitles")}
        gathered = {
            name: self._engine.all_gather(own, counts=counts.get(name, num_captions))
            for name, own in features.items()
        }
        return GlobalFeatures(**gathered, captioned=captioned.new_tensor(rows))

    def _encode_videos(self, frames: Tensor) -> Tensor:
        """(B, 1, T, 3, S, S) uint8 frames to (B, E)."""
        size = self._grad_cache_size
        video = encode_clips(self.model, frames, normalize=self._normalize, grad_cache_size=size)
        return video.embedding.squeeze(1)

    def _encode_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and mask to (B, E)."""
        return grad_cached(self.model.encode_text, ids, mask, size=self._grad_cache_size).embedding

    def evaluate(self, *data: EvaluationSet[CaptionRow]) -> dict[str, float]:
        """Retrieval metrics of each set as ``<set>_<metric>``, and their means over the sets."""
        metrics = {one.name: self._evaluator.run(one).flat_metrics() for one in data}
        of_sets = {f"{set}_{key}": x for set, xs in metrics.items() for key, x in xs.items()}
        first, *_ = metrics.values()
        means = {key: fmean(of_set[key] for of_set in metrics.values()) for key in first}
        return {**of_sets, **means}


class PostPretraining(TaskDefinition[Any]):
    """Training with a contrastive loss of CLIP-ViP, over the global batch."""

    def __init__(self, experiment: Experiment[Any]) -> None:
        super().__init__(experiment)
        self.data = ClipData(experiment)

    def check(self, *, resumes: bool) -> None:
        """Check that some training set has the captions that the loss compares.

        Raises:
            InputError: none has.
        """
        super().check(resumes=resumes)
        name, sets = self.config.loss_name, self.config.train_datasets
        if self.config.mask_same_video:
            raise InputError(
                "mask_same_video: post-pretraining compares all pairs. Set mask_same_video to 0."
            )
        if name not in RETRIEVAL_LOSSES and all(one.vis_format != WITH_FRAME for one in sets):
            raise InputError(
                f"loss_name: {name} compares frames with their captions, but no training set has "
                f"them. Set its vis_format to {WITH_FRAME}, or loss_name to NCELearnableTempLoss."
            )

    def build_objective(
        self, model: Any, *, plan: TrainingPlan, progress: Progress
    ) -> PostPretrainingObjective:
        """The loss of ``loss_name``."""
        experiment, config = self.experiment, self.config
        evaluator = RetrievalEvaluator(
            model,
            caption_chunk=config.val_batch_size,
            top_k=0,
            use_matching=False,
            progress=progress,
            **experiment.evaluator_arguments(),
        )
        return PostPretrainingObjective(
            model,
            engine=experiment.engine,
            normalize=experiment.normalize,
            evaluator=evaluator,
            loss_name=config.loss_name,
            loss_parameters=loss_parameters(config),
            grad_cache_size=config.grad_cache_size,
        )


TASK = TaskSpec(definition=PostPretraining, build_model=build_model)
