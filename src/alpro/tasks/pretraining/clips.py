"""Clips with a subtitle each, and a caption of their middle frame: post-pretraining's data.

As HD-VILA-100M (arXiv 2111.10337) has them: a list of clips with their texts, or an LMDB of texts
with a list beside it, and another LMDB or list of captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from alpro.datasets.annotations import parsed_rows, raise_error
from alpro.datasets.lmdb_texts import LmdbTexts
from alpro.datasets.row_parsing import Refuse, RowKind
from alpro.datasets.shared_rows import SharedRows, pack_rows
from alpro.errors import InputError, RunError


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip, texts to draw from, and the caption of its middle frame; empty if there is none."""

    video_id: str
    texts: tuple[str, ...]
    caption: str


class ClipTable(NamedTuple):
    """Clips of a list, with what some of them lack."""

    clips: SharedRows[Clip]
    without_text: list[str]  # ids that are left out
    num_without_caption: int


def is_list(path: Path) -> bool:
    """Whether a path names an annotation file, not an LMDB."""
    return path.suffix.lower() in CLIPS.suffixes


def list_of(txt: Path) -> Path:
    """The list of clips: the file itself, or the one beside an LMDB of texts."""
    return txt if is_list(txt) else txt.with_name(f"{txt.name}.jsonl")


def texts_of(subtitle: str, caption: str | None, source: str) -> tuple[str, ...]:
    """Texts of a clip to draw from; a clip without a caption always has its subtitle.

    Args:
        subtitle: what is said in the clip.
        caption: what is seen in its middle frame.
        source: ``subtitle``, ``caption``, ``caption_subtitle_concat`` (both) or
            ``caption_subtitle_random`` (either, equally often).
    """
    if caption is None:
        return (subtitle,)
    return {
        "subtitle": (subtitle,),
        "caption": (caption,),
        "caption_subtitle_concat": (f"{caption}. with subtitle: {subtitle}",),
        "caption_subtitle_random": (caption, subtitle),
    }[source]


def read_clips(txt: Path, *, captions: Path | None = None, source: str = "subtitle") -> ClipTable:
    """Read clips with their texts and captions.

    Args:
        txt: a table or list with the columns ``clip_id`` (or ``video_id``) and ``text``; or an LMDB
            of texts, beside which ``<path>.jsonl`` lists the ids.
        captions: a list with ``image_id`` (that of the clip) and ``caption``, or an LMDB.
        source: see `texts_of`.

    Raises:
        InputError: a file is missing or damaged, or a row is wrong; or there is no text at all.
        RunError: the clips do not fit into memory.
    """
    caption_of, without_text, num_without_caption = _captions_in(captions), list[str](), 0

    # Pack the clips while they are read, and note what they lack.
    def complete() -> Iterator[Clip]:
        nonlocal num_without_caption
        for clip_id, text in subtitles(txt):
            if text is None:
                without_text.append(clip_id)
                continue
            caption = caption_of(clip_id)
            num_without_caption += caption is None
            yield Clip(clip_id, texts_of(text, caption, source), caption or "")

    try:
        return ClipTable(pack_rows(complete(), Clip), without_text, num_without_caption)
    except MemoryError as error:
        raise RunError(f"{list_of(txt)}: its clips do not fit into memory") from error


def subtitles(txt: Path, *, refuse: Refuse = raise_error) -> Iterator[tuple[str, str | None]]:
    """Read the ids of clips and their texts, None for one that an LMDB lacks; see `read_clips`."""
    if is_list(txt):
        yield from parsed_rows(txt, CLIPS, refuse=refuse)
        return
    text_of = LmdbTexts(txt).get
    for clip_id, _ in parsed_rows(list_of(txt), LISTED_CLIPS, refuse=refuse):
        yield clip_id, text_of(clip_id)


def _captions_in(path: Path | None) -> Callable[[str], str | None]:
    if path is None:
        return lambda _: None
    if not is_list(path):
        return LmdbTexts(path).get
    # Two rows of a clip may repeat its caption, but not state another one.
    captions: dict[str, str] = {}
    for clip_id, caption in parsed_rows(path, FRAME_CAPTIONS):
        if captions.setdefault(clip_id, caption) != caption:
            raise InputError(f"{path}: two captions of image_id {clip_id!r}; remove one of them")
    return captions.get


_ID_NAMES = ("clip_id", "video_id")

CLIPS: RowKind[Any] = RowKind(
    noun="clip",
    columns=(("text",), _ID_NAMES),
    example='{"text": "now add the flour", "clip_id": "Bv3.12.mp4"}',
    parse=lambda record: (record.identifier(*_ID_NAMES), record.text("text").strip()),
    may_list=True,
)

LISTED_CLIPS: RowKind[Any] = RowKind(
    noun="clip",
    columns=(_ID_NAMES,),
    example='{"clip_id": "Bv3.12.mp4"}',
    parse=lambda record: (record.identifier(*_ID_NAMES), ""),
)

FRAME_CAPTIONS: RowKind[Any] = RowKind(
    noun="caption",
    columns=(("image_id",), ("caption",)),
    example='{"image_id": "Bv3.12.mp4", "caption": "a bowl on a table"}',
    parse=lambda record: (record.identifier("image_id"), record.text("caption").strip()),
)
