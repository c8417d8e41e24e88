"""Training the prompter: contrastive loss alone, so that it can tell what is seen where.

Shapes: B pairs on this rank, G pairs on all ranks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.datasets.pretraining import PretrainBatch
from src.distributed.engine import Engine, SingleProcess
from src.evaluation.pair_sets import Measured, PairSet, mean_losses
from src.evaluation.running import Progress, evaluation_mode
from src.modeling.alpro import AlproModel
from src.pretrain.measures import measure_contrast
from src.tasks.pair_losses import same_video
from src.training.task import Task


class PrompterTask(Task):
    """VTC between captions and videos or images (ALPRO section 3.3)."""

    model: AlproModel

    def __init__(
        self,
        model: AlproModel,
        *,
        engine: Engine,
        normalize: nn.Module,
        mask_same_video: bool,
        precision: str,
        allow_missing_videos: bool,
        progress: Progress,
    ) -> None:
        """Assemble the objective.

        Args:
            model: what is trained.
            engine: the job, for the gathered contrastive loss.
            normalize: uint8 frames to what the model expects.
            mask_same_video: captions of one video are not each other's negatives.
            precision: of validation's forward passes.
            allow_missing_videos: validate without what cannot be read.
            progress: shows validation's batches.
        """
        super().__init__()
        self.model = model
        self._engine = engine
        self._normalize = normalize
        self._mask_same_video = mask_same_video
        self._precision = precision
        self._allow_missing_videos = allow_missing_videos
        self._progress = progress

    def forward(self, batch: PretrainBatch) -> dict[str, Tensor]:
        """``loss``, which is ``itc_loss``, and the shares of pairs found both ways."""
        self.model.clamp_temperature()
        found = self._measure(batch, engine=self._engine)
        return {"loss": found.loss, **found.values("itc")}

    def evaluate(self, data: Sequence[PairSet]) -> dict[str, float]:
        """Mean loss and accuracies, each pair among those of its validation batch."""
        alone = SingleProcess(self._engine.device, scale_loss=False)

        def measure(batch: PretrainBatch, _: torch.Generator) -> dict[str, Measured]:
            return {"itc": self._measure(batch, engine=alone)}

        with evaluation_mode(self.model):
            return mean_losses(
                data,
                measure,
                engine=self._engine,
                precision=self._precision,
                allow_missing=self._allow_missing_videos,
                progress=self._progress,
            )

    def _measure(self, batch: PretrainBatch, *, engine: Engine) -> Measured:
        video = self.model.encode_video(self._normalize(batch.frames))
        text = self.model.encode_text(batch.text_ids, batch.text_mask)
        exclude = same_video(batch.video_ids, engine=engine) if self._mask_same_video else None
        return measure_contrast(
            video, text, temperature=self.model.temp, engine=engine, exclude=exclude
        )
