"""DiDeMo and ActivityNet Captions: descriptions of moments, joined to a paragraph per video.

Retrieval of videos by paragraphs follows Zhang et al. (HSE, ECCV 2018) and ClipBERT. The
descriptions are joined by spaces in the order of the files, as CLIP4Clip does; of DiDeMo that is
not the order in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from alpro.commands.convert.conversion import Conversion, Published, Row
from alpro.commands.convert.sources import SourceFile, Sources, field
from alpro.errors import InputError

ORDERS = ("file", "time")
_DIDEMO = "Hendricks et al., ICCV 2017; albanie/collaborative-experts, misc/datasets/didemo"
_ACTIVITYNET = "Krishna et al., ICCV 2017; albanie/collaborative-experts, misc/.../activity-net"
_DIDEMO_FILES = {"train": "train_data.json", "val": "val_data.json", "test": "test_data.json"}
_DIDEMO_VIDEOS = {"train": 8395, "val": 1065, "test": 1004}
_ACTIVITYNET_FILES = {"train": "train.json", "val": "val_1.json", "val_2": "val_2.json"}
_ACTIVITYNET_VIDEOS = {"train": 10009, "val": 4917, "val_2": 4885}
_OPTIONAL = "val_2"


@dataclass(frozen=True, slots=True)
class _Moment:
    """A description with the time it is about, in any unit."""

    text: str
    start: float
    end: float


def convert_didemo(sources: Sources, *, order: str = "file") -> Conversion:
    """Convert ``train_data.json``, ``val_data.json`` and ``test_data.json``.

    Args:
        sources: where these are.
        order: the order of descriptions, one of `ORDERS`; times of several
            annotators are averaged.
    """
    splits = {
        split: _paragraphs(_didemo_moments(sources.need(name, of="DiDeMo")), order=order)
        for split, name in _DIDEMO_FILES.items()
    }
    return _conversion(splits, _DIDEMO_VIDEOS, source=_DIDEMO)


def convert_activitynet(sources: Sources, *, order: str = "file") -> Conversion:
    """Convert ``train.json``, ``val_1.json`` to ``val.jsonl``, and ``val_2.json`` where given.

    Both validation files describe the same videos in other words; results of retrieval are
    published for ``val_1``. There are no captions of the test videos.
    """
    splits = {}
    for split, name in _ACTIVITYNET_FILES.items():
        file = sources.find(name)
        if file is None and split != _OPTIONAL:
            file = sources.need(name, of="ActivityNet Captions")
        if file is not None:
            splits[split] = _paragraphs(_activitynet_moments(file), order=order)
    conversion = _conversion(splits, _ACTIVITYNET_VIDEOS, source=_ACTIVITYNET)
    conversion.notices.append(
        "there is no test split with captions: results are published for val.jsonl (val_1)"
    )
    return conversion


def _conversion(
    splits: dict[str, list[Row]], num_videos: dict[str, int], *, source: str
) -> Conversion:
    published = {split: Published(source, num_videos[split], num_videos[split]) for split in splits}
    return Conversion("paragraph", dict(splits), published)


def _paragraphs(moments: dict[str, list[_Moment]], *, order: str) -> list[Row]:
    rows = []
    for video_id, own in moments.items():
        if order == "time":
            own = sorted(own, key=lambda moment: (moment.start, moment.end))
        if caption := " ".join(moment.text for moment in own if moment.text):
            rows.append({"caption": caption, "clip_name": video_id})
    return rows


def _didemo_moments(file: SourceFile) -> dict[str, list[_Moment]]:
    moments: dict[str, list[_Moment]] = {}
    expected = "a list of descriptions"
    for number, entry in enumerate(file.json(list, expected=expected)):
        where = f"{file.where}: entry {number}"
        # Several annotators gave times: their mean orders the descriptions.
        times = [_span(one, where=where) for one in field(entry, "times", list, where=where)] or [
            (0.0, 0.0)
        ]
        text = field(entry, "description", str, where=where).strip()
        start, end = (fmean(part) for part in zip(*times, strict=True))
        video_id = _without_extension(field(entry, "video", str, where=where))
        moments.setdefault(video_id, []).append(_Moment(text, start, end))
    return moments


def _activitynet_moments(file: SourceFile) -> dict[str, list[_Moment]]:
    moments: dict[str, list[_Moment]] = {}
    expected = "an object of videos with their timestamps and sentences"
    for video_id, entry in file.json(dict, expected=expected).items():
        where = f"{file.where}: {video_id}"
        sentences = field(entry, "sentences", list, where=where)
        timestamps = field(entry, "timestamps", list, where=where)
        if len(sentences) != len(timestamps):
            raise InputError(
                f"{where}: {len(sentences)} sentences but {len(timestamps)} timestamps"
            )
        moments[video_id] = [
            _Moment(" ".join(_text(sentence, where=where).split()), *_span(times, where=where))
            for sentence, times in zip(sentences, timestamps, strict=True)
        ]
    return moments


def _text(value: Any, *, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: a sentence is expected, not {value!r}")
    return value


def _span(value: Any, *, where: str) -> tuple[float, float]:
    if not (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(isinstance(number, int | float) for number in value)
    ):
        raise InputError(f"{where}: a start and an end are expected, not {value!r}")
    return float(value[0]), float(value[1])


def _without_extension(name: str) -> str:
    """A video's id: DiDeMo's files keep the extensions of what was uploaded."""
    return name.rpartition(".")[0] or name
