"""Small stand-ins for what users bring: videos, annotations, a tokenizer, configs, models.

Videos are small text files whose number seeds fake frames, read by :class:`FakeDecoder`, so
that most tests need no video library; ``write_clip`` of ``tests.datasets.clips`` makes real ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.decoding import FrameSelector, Video, VideoReadError
from alpro.datasets.storage import VideoFolder
from alpro.datasets.tokenization import Tokenizer, load_tokenizer, tokenize
from alpro.datasets.transforms.normalize import Normalize
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.datasets.video_datasets import EvaluationVideos, FrameReader, HasVideoId, collate_videos
from alpro.distributed.engine import Engine, SingleProcess
from alpro.evaluation.encoding import chunks, shard
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.families.alpro.model import AlproForRetrieval, AlproModel, TimeSformerEncoder
from alpro.modeling.bert import SplitBert
from alpro.modeling.contracts import TextEncoder
from alpro.modeling.timesformer import TimeSformer
from alpro.tasks.retrieval.evaluation import RetrievalEvaluator
from alpro.tasks.retrieval.objective import RetrievalBatch

CPU = torch.device("cpu")
WIDTH, HEADS, IMAGE_SIZE, PATCH_SIZE, NUM_FRAMES, EMBED_DIM = 32, 2, 32, 16, 2, 16
NUM_VIDEO_FRAMES = 8  # frames of a fake video
BROKEN = "broken"  # content of a video that cannot be read
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "red", "green", "blue", "ball", "box", "rolls", "falls", "left", "right", "and")
QUESTION_WORDS = ("what", "is", "it", "who", "how", "many", "fall", "which", "way")
VOCABULARY = (*SPECIAL_TOKENS, *WORDS, *QUESTION_WORDS)
AnyModel = TypeVar("AnyModel", bound=AlproModel)
AnyText = TypeVar("AnyText", bound=TextEncoder)
AnyRow = TypeVar("AnyRow", bound=HasVideoId)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class FakeDecoder:
    """Reads a text file: its number seeds a video of :data:`NUM_VIDEO_FRAMES` noisy frames."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()  # how often each video was read

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        assert isinstance(video, Path)
        self.reads[video.stem] += 1
        if (text := video.read_text()) == BROKEN:
            raise VideoReadError("made to be unreadable")
        colour = np.random.default_rng(int(text)).integers(0, 200, (3, 1, 1))
        rngs = [np.random.default_rng([int(text), i]) for i in select(NUM_VIDEO_FRAMES).tolist()]
        noise = np.stack([rng.integers(0, 50, (3, *[preprocessing.size] * 2)) for rng in rngs])
        return (colour + noise).astype(np.uint8)


def caption_of(index: int) -> str:
    """A caption of 2 to 5 words, another one for each small index."""
    words = [WORDS[(index * step + step) % len(WORDS)] for step in (1, 2, 3, 5, 7)]
    return " ".join(words[: 2 + index % 4])


def rows_of(num_videos: int, *, captions_per_video: int = 1) -> list[CaptionRow]:
    """Captions of the videos v0, v1, ...; those of a video are not next to each other."""
    return [
        CaptionRow(caption_of(turn * num_videos + video), f"v{video}")
        for turn in range(captions_per_video)
        for video in range(num_videos)
    ]


def write_videos(folder: Path, video_ids: Iterable[str], *, broken: Sequence[str] = ()) -> Path:
    """Write a fake video for each id."""
    folder.mkdir(parents=True, exist_ok=True)
    for video_id in video_ids:
        content = BROKEN if video_id in broken else str(sum(map(ord, video_id)))
        (folder / f"{video_id}.mp4").write_text(content)
    return folder


def write_captions(path: Path, rows: Iterable[CaptionRow]) -> Path:
    """Write an annotation file in the original's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [{"caption": row.caption, "clip_name": row.video_id} for row in rows]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_vocabulary(folder: Path) -> Path:
    """Write the tokenizer that knows :data:`VOCABULARY`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    return folder


def make_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that knows :data:`VOCABULARY`."""
    return load_tokenizer(write_vocabulary(folder), vocab_size=len(VOCABULARY))


def make_model(
    *, seed: int = 0, spread: float = 0.2, dropout: float = 0.0, num_frames: int = NUM_FRAMES
) -> AlproForRetrieval:
    """A tiny model; with a large ``spread`` of its weights the scores of pairs differ clearly."""
    torch.manual_seed(seed)
    encoders = make_encoders(SplitBert, spread=spread, dropout=dropout, num_frames=num_frames)
    return spread_weights(AlproForRetrieval(*encoders, embed_dim=EMBED_DIM), spread=spread)


def spread_weights(model: AnyModel, *, spread: float) -> AnyModel:
    """The model with normally distributed weights; biases stay as they are."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=spread)
    return model


def make_encoders(
    text_class: Callable[..., AnyText], *, spread: float, dropout: float, num_frames: int
) -> tuple[TimeSformerEncoder, AnyText]:
    """The two encoders of a tiny model."""
    video = TimeSformer(
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        num_frames=num_frames,
        embed_dim=WIDTH,
        depth=1,
        num_heads=HEADS,
        mlp_ratio=2.0,
        drop_rate=dropout,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        gradient_checkpointing=False,
        pos_embed_std=spread,
        time_embed_std=spread,
        temporal_init="normal",
        attention="plain",
    )
    text = text_class(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        fusion_layer=1,
        hidden_act="gelu",
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=32,
        type_vocab_size=2,
        pad_token_id=0,
        initializer_range=spread,
        layer_norm_eps=1e-12,
        attention="plain",
    )
    return TimeSformerEncoder(video), text


def noise(video_ids: Iterable[str], *, num_clips: int) -> Tensor:
    """Frames (B, C, T, 3, S, S) uint8 that stand for the videos of a batch."""
    shape = (num_clips, NUM_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE)
    rngs = (np.random.default_rng(sum(map(ord, video_id))) for video_id in video_ids)
    return torch.from_numpy(np.stack([rng.integers(0, 256, shape, np.uint8) for rng in rngs]))


def make_batch(
    tokenizer: Tokenizer, rows: Sequence[CaptionRow], *, num_clips: int = 1
) -> RetrievalBatch:
    """A training batch of captions with noise for videos."""
    ids, mask = tokenize(tokenizer, [row.caption for row in rows], max_length=20)
    return RetrievalBatch(
        frames=noise((row.video_id for row in rows), num_clips=num_clips),
        text_ids=ids,
        text_mask=mask,
        video_ids=[row.video_id for row in rows],
        unreadable=[],
    )


def make_retrieval_set(
    folder: Path, rows: Sequence[CaptionRow], **options: Any
) -> EvaluationSet[CaptionRow]:
    """Captions and fake videos in ``folder``; ``options`` as :func:`make_evaluation_set`'s."""
    return make_evaluation_set(write_captions(folder / "captions.jsonl", rows), rows, **options)


def make_evaluation_set(
    annotations: Path,
    rows: Sequence[AnyRow],
    *,
    broken: Sequence[str] = (),
    chunk: int = 2,
    num_clips: int = 1,
    engine: Engine | None = None,
    decoder: FakeDecoder | None = None,
) -> EvaluationSet[AnyRow]:
    """A set with fake videos beside its annotations; the loader is a plain list."""
    engine = engine or SingleProcess(CPU, scale_loss=False)
    video_ids = list(dict.fromkeys(row.video_id for row in rows))
    folder = annotations.parent / "videos"
    write_videos(folder, video_ids, broken=broken)
    decoder, tiny = decoder or FakeDecoder(), PixelPreprocessing(size=IMAGE_SIZE)
    reader = FrameReader(VideoFolder(folder), decoder, NUM_FRAMES, "uniform", tiny)
    videos = EvaluationVideos(video_ids, reader, num_clips=num_clips, seed=0)
    pieces = chunks(len(video_ids), size=chunk)
    own = shard(pieces, engine=engine)
    loader: Any = [collate_videos([videos[position] for position in piece]) for piece in own]
    return EvaluationSet("tiny", annotations, video_ids, folder, rows, pieces, loader)


def make_evaluator(
    model: AlproForRetrieval, tokenizer: Tokenizer, *, engine: Engine | None = None, **changes: Any
) -> RetrievalEvaluator:
    """An evaluator of all pairs in fp32; ``changes`` are further arguments of its class."""
    engine = engine or SingleProcess(CPU, scale_loss=False)
    arguments: dict[str, Any] = {
        **{"precision": "fp32", "caption_chunk": 3, "top_k": 0, "use_matching": True},
        "allow_missing_videos": False,
        **changes,
    }
    return RetrievalEvaluator(
        model,
        tokenize=lambda texts: tokenize(tokenizer, texts, max_length=20),
        normalize=Normalize(MEAN, STD).to(engine.device),
        engine=engine,
        **arguments,
    )


@dataclass
class TinyExperiment:
    """A complete retrieval experiment in a folder: videos, annotations, tokenizer, model files."""

    root: Path
    num_train: int = 6
    num_val: int = 3
    num_test: int = 3
    dropout: float = 0.1
    values: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        write_vocabulary(self.root / "tokenizer")
        counts = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        for name, count in counts.items():
            video_ids = [f"{name}{i}" for i in range(count)]
            self.write_annotations(self.root / "txt" / f"{name}.jsonl", video_ids)
            write_videos(self.root / "videos", video_ids)
        video_model = {
            **{"cls": "TimeSformer", "patch_size": PATCH_SIZE, "embed_dim": WIDTH, "depth": 1},
            **{"num_heads": HEADS, "mlp_ratio": 2.0, "temporal_init": "normal"},
            **{"drop_path_rate": self.dropout, "drop_rate": self.dropout},
        }
        text_model = {
            **{"vocab_size": len(VOCABULARY), "hidden_size": WIDTH, "num_hidden_layers": 2},
            **{"num_attention_heads": HEADS, "intermediate_size": 2 * WIDTH, "fusion_layer": 1},
            **{"max_position_embeddings": 32, "itc_embed_dim": EMBED_DIM},
            **{"hidden_dropout_prob": self.dropout, "initializer_range": 0.2},
            "attention_probs_dropout_prob": self.dropout,
        }
        self.values = {
            "train_datasets": [self.dataset("train")],
            "val_datasets": [self.dataset("val")],
            "test_datasets": [self.dataset("test")],
            **{"crop_img_size": IMAGE_SIZE, "img_pixel_mean": MEAN, "img_pixel_std": STD},
            **{"num_frm": NUM_FRAMES, "max_txt_len": 12},
            "tokenizer_dir": str(self.root / "tokenizer"),
            "visual_model_cfg": str(self.write("video_model.json", video_model)),
            "model_config": str(self.write("text_model.json", text_model)),
            **{"random_init": 1, "train_batch_size": 3, "val_batch_size": 2, "num_train_epochs": 2},
            **{"min_valid_steps": 2, "num_valid": 2, "save_steps_ratio": 0.5, "log_interval": 1},
            **{"learning_rate": 1e-3, "warmup_ratio": 0.25, "n_workers": 0, "device": "cpu"},
        }

    def write_annotations(self, path: Path, video_ids: Sequence[str]) -> None:
        """Write the annotation file of a split: one caption per video."""
        rows = [CaptionRow(caption_of(i), video_id) for i, video_id in enumerate(video_ids)]
        write_captions(path, rows)

    def dataset(self, split: str) -> dict[str, str]:
        """An entry of ``train_datasets`` and the like."""
        return {
            "name": f"tiny {split}",
            "txt": str(self.root / "txt" / f"{split}.jsonl"),
            "img": str(self.root / "videos"),
        }

    def write(self, name: str, value: Any) -> Path:
        """Write a JSON file into the experiment's folder."""
        path = self.root / name
        path.write_text(json.dumps(value))
        return path

    def config(self, **changes: Any) -> Path:
        """Write the experiment's config with changes."""
        return self.write("experiment.json", {**self.values, **changes})

    def arguments(self, *flags: str, output: str = "run", **changes: Any) -> list[str]:
        """Command line of a run with changes to the config, and flags."""
        config = self.config(**changes)
        return ["--config", str(config), "--output_dir", str(self.root / output), *flags]

    def inference(self, *flags: str, output: str = "run", split: str = "test") -> list[str]:
        """Command line of an inference run."""
        part = self.dataset(split)
        given = ["--inference_txt_db", part["txt"], "--inference_img_db", part["img"]]
        return self.arguments("--do_inference", "1", *given, *flags, output=output)
