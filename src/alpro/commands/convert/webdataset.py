"""Captions in shards of WebDataset's layout, such as those of WebVid by video2dataset.

A shard is a tar file whose members ``<key>.mp4``, ``<key>.txt`` and ``<key>.json`` belong
together. Videos are skipped, not read; they get the ids by which training reads shards.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from alpro.commands.convert.conversion import Row, write_all, write_rows
from alpro.datasets.storage.directory_index import split_extension
from alpro.datasets.storage.tar_reader import DAMAGES, TarReader, id_of_member
from alpro.errors import InputError, pluralize
from alpro.user_files import MAX_LINE_CHARACTERS, JsonError, parse_json

TEXTS = (".txt", ".json")
CAPTION_KEYS = ("caption", "text")
"""Keys of the caption in a sample's JSON, in this order."""
_HINT = "annotations of shards are read from their .txt or .json members"


@dataclass(slots=True)
class ShardCaptions:
    """The rows of shards, with counts of those left out."""

    shards: Sequence[Path]
    num_rows: int = 0
    num_without_caption: int = 0
    num_without_video: int = 0
    _seen: dict[str, Path] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        """Read the shards in their order; samples without caption or without video are left out.

        Raises:
            InputError: a shard is damaged, or a key is in two of them.
        """
        for shard in tqdm(self.shards, unit="shard"):
            yield from self._rows_of(shard)

    def _rows_of(self, shard: Path) -> Iterator[Row]:
        # A sample is complete with a video and a caption; others are counted.
        videos, texts = _read_shard(shard)
        for key in dict.fromkeys([*videos, *texts]):
            if key in self._seen:
                raise InputError(f"{shard}: key {key!r} is in {self._seen[key]} too")
            self._seen[key] = shard
            caption = _caption(texts.get(key, {}), where=f"{shard}: {key}")
            if key not in videos:
                self.num_without_video += 1
            elif not caption:
                self.num_without_caption += 1
            else:
                self.num_rows += 1
                yield {"caption": caption, "video_id": key}


Texts = dict[str, dict[str, str]]
"""Key -> extension -> text of the member."""


def _read_shard(shard: Path) -> tuple[dict[str, None], Texts]:
    """The keys of the videos in a shard, in their order, and its texts."""
    videos: dict[str, None] = {}
    texts: Texts = {}
    try:
        with TarReader(io.FileIO(shard)) as archive:
            for member, _ in archive.entries():
                member.name.encode()  # refuses surrogates, of names that are not UTF-8
                # Texts are assigned to the video of the same stem.
                key = id_of_member(member.name)
                stem, extension = split_extension(member.name)
                text_of = id_of_member(f"{stem}.mp4") if extension in TEXTS else None
                if key is not None:
                    videos[key] = None
                elif text_of is not None and member.isreg():
                    size = min(member.size, MAX_LINE_CHARACTERS + 1)
                    text = archive.content(member.offset_data, size)
                    where = f"{shard}: {member.name}"
                    texts.setdefault(text_of, {})[extension] = _decoded(text, where=where)
    except InputError:
        raise
    except (*DAMAGES, OSError) as error:
        raise InputError(
            f"{shard}: cannot be read as an uncompressed tar file ({error}); is it complete?"
        ) from error
    return videos, texts


def _decoded(data: bytes, *, where: str) -> str:
    if len(data) > MAX_LINE_CHARACTERS:
        raise InputError(f"{where}: has more than {MAX_LINE_CHARACTERS:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text ({error})") from error


def convert_webdataset(
    given: Sequence[Path], output: Path, *, name: str, may_overwrite: bool
) -> None:
    """Write the captions of shards as ``<name>.jsonl``, and print a summary.

    Args:
        given: shards, or folders of shards.
        output: the folder of the file.
        name: of the file.
        may_overwrite: whether a file with other content may be replaced.

    Raises:
        InputError: there are no shards or no captions in them, or a file would be replaced.
    """
    # Rows are streamed into the file: WebVid does not fit into memory.
    captions = ShardCaptions(shards_in(given))
    path = output / f"{name}.jsonl"

    def write(temporary: Path) -> None:
        write_rows(temporary, captions.rows())
        if not captions.num_rows:
            raise InputError(
                f"--source: no sample with a video and a caption in "
                f"{pluralize(len(captions.shards), 'shard')}; {_HINT}"
            )

    write_all({path: write}, may_overwrite=may_overwrite)
    print(f"{path}: {pluralize(captions.num_rows, 'caption')}, one per video")
    # Report the samples that were left out.
    for count, lack in (
        (captions.num_without_caption, "without caption"),
        (captions.num_without_video, "without video"),
    ):
        if count:
            print(f"note: {pluralize(count, 'sample')} {lack} left out")


def shards_in(given: Sequence[Path]) -> list[Path]:
    """The given tar files, and those of the given folders.

    Raises:
        InputError: there is none, or a path is neither.
    """
    shards: list[Path] = []
    for path in given:
        if path.is_dir():
            members = sorted(path.rglob("*.tar"))
            if not members:
                raise InputError(f"--source: {path}: no .tar file in this folder; {_HINT}")
            shards += members
        elif path.is_file() and path.suffix.lower() == ".tar":
            shards.append(path)
        else:
            raise InputError(f"--source: {path}: neither a folder nor a .tar file; {_HINT}")
    return shards


def _caption(parts: dict[str, str], *, where: str) -> str:
    """The sample's caption on one line; empty where it has none."""
    if text := " ".join((parts.get(".txt", "")).split()):
        return text
    described = parts.get(".json")
    if not described:
        return ""
    try:
        values = parse_json(described)
    except JsonError as error:
        raise InputError(f"{where}.json: not JSON ({error.reason})") from error
    if isinstance(values, dict):
        for key in CAPTION_KEYS:
            if isinstance(values.get(key), str) and values[key].strip():
                return " ".join(values[key].split())
    return ""
