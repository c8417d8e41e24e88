"""Data sets of CLIP-ViP's post-pretraining."""

import logging
from pathlib import Path

from alpro.datasets.storage import open_videos
from alpro.errors import InputError
from alpro.experiment.data import check_missing_videos, report_missing, without_missing
from alpro.experiment.preflight import DatasetPaths
from alpro.families.clip_vip.clip_batches import ClipCollate
from alpro.tasks.pretraining.clips import list_of, read_clips
from alpro.tasks.pretraining.config import PretrainingConfig
from alpro.tasks.pretraining.data import CaptionedSet, PretrainingData
from alpro.tasks.pretraining.options import PretrainingDataset, pretraining_file

logger = logging.getLogger(__name__)

WITH_FRAME = "videoframe"  # value of `vis_format`


class ClipData(PretrainingData):
    """The data sets of a post-pretraining experiment."""

    def paths(self, key: str) -> list[DatasetPaths]:
        """Paths of the sets that a key of the config lists."""
        paths = []
        for index, part in enumerate(getattr(self._config, key)):
            named = f"{key}.{index}", part.name, "ann" if part.ann is not None else "txt"
            paths.append(DatasetPaths(*named, list_of(Path(pretraining_file(part))), part.img))
        return paths

    def read(self, key: str) -> list[CaptionedSet]:
        """Read the sets that a key of the config lists."""
        sets = enumerate(getattr(self._config, key))
        return [load_clips(self._config, part, key=f"{key}.{index}") for index, part in sets]

    def collate(self, *, seed: int) -> ClipCollate:  # type: ignore[override]
        """The collate function for clips."""
        config, tokenizer = self._config, self._experiment.tokenizer
        return ClipCollate(
            tokenizer, num_frames=config.num_frm, max_length=config.max_txt_len, seed=seed
        )


def load_clips(config: PretrainingConfig, part: PretrainingDataset, *, key: str) -> CaptionedSet:
    """Read one set, given by its `key` in the config: ``train_datasets.0``.

    Clips without a text or video are left out where that is allowed; those without a caption have
    no pair of a frame and a caption.

    Raises:
        InputError: if texts or videos are missing and that is not allowed.
    """
    if part.img is None:
        raise InputError(f"{key}.img ({part.name}): name the folder, LMDB or shards of its clips")
    # Read the clips, with their captions if these are used.
    txt, with_frame = Path(pretraining_file(part)), part.vis_format == WITH_FRAME
    uses_captions = with_frame or part.vid_txt != "subtitle"
    captions = Path(part.vid_cap_path) if part.vid_cap_path and uses_captions else None
    table = read_clips(txt, captions=captions, source=part.vid_txt)
    path, clips = list_of(txt), table.clips
    # Report what they lack, captions once and for all.
    if table.without_text:
        report_missing(
            table.without_text,
            name=part.name,
            named_in=f"{len(clips) + len(table.without_text)} clips listed in {path}",
            place=f"the texts {txt}",
            are_all=not clips,
            hint=None,
            allowed=config.allow_missing_videos,
        )
    if captions is not None and (lack := table.num_without_caption):
        if lack == len(clips):
            raise InputError(
                f"{key}.vid_cap_path ({part.name}): none of the {lack} clips of {path} has a "
                f"caption in {captions}. Name the captions of these clips, by the same ids."
            )
        logger.warning(
            "%s: %d of %d clips have no caption in %s; they have %s",
            *(part.name, lack, len(clips), captions),
            "no pair of frame and caption" if with_frame else "their subtitle as text",
        )
    # Leave out clips that the storage lacks.
    videos, allowed = open_videos(Path(part.img)), config.allow_missing_videos
    missing = check_missing_videos(path, clips, videos, name=part.name, allowed=allowed)
    return CaptionedSet(
        *(part.name, path, without_missing(clips, missing), 0, "video", videos, None, part.weight),
        middle_frame=with_frame,
    )
