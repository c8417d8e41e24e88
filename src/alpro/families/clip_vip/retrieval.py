"""Text-to-video retrieval with CLIP-ViP."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.shared_rows import SharedRows, pack_rows
from alpro.errors import InputError
from alpro.families.clip_vip.config import PLAIN, RETRIEVAL_LOSSES, loss_parameters
from alpro.families.clip_vip.family import build_model
from alpro.families.clip_vip.losses import pair_loss
from alpro.families.clip_vip.model import ClipVip
from alpro.families.family import TaskSpec
from alpro.losses import PairLoss
from alpro.tasks.retrieval.definition import Retrieval

logger = logging.getLogger(__name__)


class ClipVipRetrieval(Retrieval):
    """Retrieval with a contrastive loss of CLIP-ViP, over the global batch."""

    config: Any

    def check(self, *, resumes: bool) -> None:
        """Check that the loss needs nothing but videos and texts.

        Raises:
            InputError: it is one of pretraining.
        """
        super().check(resumes=resumes)
        if self.config.loss_name not in RETRIEVAL_LOSSES:
            raise InputError(
                f"loss_name: {self.config.loss_name} compares captions of frames too, which "
                f"retrieval has not. Take one of {', '.join(RETRIEVAL_LOSSES)}."
            )

    def read_rows(self, path: Path) -> SharedRows[CaptionRow]:
        """Read captions; folders of ids that do not exist are no part of the files' names."""
        rows = super().read_rows(path)
        nested = next((name for name in rows.column("video_id") if "/" in name), None)
        if nested is None or (self._videos_of(path) / nested).parent.is_dir():
            return rows
        logger.info("%s: the last part of ids such as %s names the video", path, nested)
        short = (replace(row, video_id=row.video_id.rpartition("/")[2]) for row in rows)
        return pack_rows(short, CaptionRow)

    def _videos_of(self, annotations: Path) -> Path:
        """Folder of the set with these annotations."""
        config = self.config
        if config.do_inference:
            return Path(config.inference_img_db)
        sets = [*config.train_datasets, *config.val_datasets, *config.test_datasets]
        return Path(next(one.img for one in sets if self.annotation_path(one) == annotations))

    def complete_model(self, model: ClipVip) -> None:
        """Replace the scale of similarities where the config says so."""
        config = self.config
        if config.overload_logit_scale is not None and not config.do_inference:
            with torch.no_grad():
                model.logit_scale.fill_(config.overload_logit_scale)
        if config.vision_type != PLAIN and config.if_use_temporal_embed:
            for frames in sorted({config.num_frm, config.num_evaluated_frames}):
                if frames != config.temporal_size:
                    logger.info(
                        "%d frames: the time embedding of %d is interpolated",
                        *(frames, config.temporal_size),
                    )

    def pair_loss(self) -> PairLoss:
        """The loss of ``loss_name``."""
        return pair_loss(self.config.loss_name, loss_parameters(self.config))


TASK = TaskSpec(definition=ClipVipRetrieval, build_model=build_model)
