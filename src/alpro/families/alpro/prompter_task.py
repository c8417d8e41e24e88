"""Training the prompter: contrastive loss alone, so that it can tell what is seen where.

Shapes: B pairs on this rank, G pairs on all ranks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from alpro.datasets.pretraining import PretrainBatch
from alpro.distributed.engine import Engine
from alpro.objectives.metered_losses import measure_contrast
from alpro.objectives.pair_task import PairTask
from alpro.objectives.validation import LossWithMetrics


class PrompterTask(PairTask):
    """VTC between captions and videos or images (ALPRO section 3.3)."""

    def forward(self, batch: PretrainBatch) -> dict[str, Tensor]:
        """``loss``, which is ``itc_loss``, and the shares of pairs found both ways."""
        self.model.clamp_temperature()
        found = self._measure(batch, engine=self._engine)
        return {"loss": found.loss, **found.values("itc")}

    def measure_all(
        self,
        batch: PretrainBatch,
        *,
        engine: Engine,
        generator: torch.Generator,  # noqa: ARG002  # nothing is drawn
    ) -> Mapping[str, LossWithMetrics]:
        """VTC of B pairs among those of an engine's ranks."""
        return {"itc": self._measure(batch, engine=engine)}

    def _measure(self, batch: PretrainBatch, *, engine: Engine) -> LossWithMetrics:
        video = self._encode_videos(batch.frames)
        text = self._encode_texts(batch.text_ids, batch.text_mask)
        return measure_contrast(video, text, gathered=self._gathered(batch, engine=engine))
