"""The prompter (ALPRO section 3.3), which predicts the entities in a region of a video or image.

It is trained by the contrastive loss alone. Frozen, it is the teacher of pretraining: an entity is
as probable as its prompts, "A video of a dog." and the like, are similar to the region.

B: batch, T: frames, S: image side, K: entities, M: templates, L: tokens of a prompt, E: embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from alpro.distributed.engine import Engine
from alpro.errors import InputError
from alpro.experiment.weights import load_checkpoint
from alpro.families.alpro.model import AlproModel, Pooling
from alpro.families.alpro.pretrained import CHECKPOINT
from alpro.file_kinds import Media
from alpro.modeling.bert import SplitBert
from alpro.modeling.contracts import VideoEncoder
from alpro.modeling.state_dict_adapter import StateDict
from alpro.tasks.pretraining.batches import PretrainBatch
from alpro.tasks.pretraining.objective import LossWithMetrics, PairObjective, measure_contrast

logger = logging.getLogger(__name__)

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]
"""Texts to ids (B, L) and mask (B, L) of 0/1, padded to the longest text."""

VIDEO_TEMPLATES = (
    *("A footage of a {}.", "A footage of the {}.", "A footage of one {}."),
    *("A video of a {}.", "A video of the {}.", "A video of one {}."),
    *("A portrait of a {}.", "A portrait of the {}.", "A portrait of one {}."),
    *("A video footage of a {}.", "A video footage of the {}.", "A video footage of one {}."),
)
IMAGE_TEMPLATES = (
    *("A photo of a {}.", "A photo of the {}.", "A photo of one {}."),
    *("A picture of a {}.", "A picture of the {}.", "A picture of one {}."),
    *("A good photo of the {}.", "A good photo of a {}.", "A good photo of one {}."),
    *("A good picture of the {}.", "A good picture of a {}.", "A good picture of one {}."),
)
TEMPLATES: dict[Media, tuple[str, ...]] = {"video": VIDEO_TEMPLATES, "image": IMAGE_TEMPLATES}

MAX_PROMPT_TOKENS = 15  # as in the original; leaves an entity at least 7 word pieces
PROMPTS_AT_ONCE = 1000  # bounds the memory of encoding them: about 0.5 GB at the published size

PROMPT_NAMES = ("video_prompt_feat", "image_prompt_feat")
"""Names of the two buffers, which belong to a list of entities rather than to the weights."""
LANGUAGE_HEAD = "text_encoder.cls.*"
"""Pattern of the parameters that only MLM trains."""
UNUSED_BY_PROMPTER = ("itm_head.*", LANGUAGE_HEAD)
"""Patterns of parameters that a prompter's checkpoint may lack."""


def prompts_of(entities: Sequence[str], media: Media) -> list[str]:
    """All prompts of all entities, M * K: the first template of each entity, then the second."""
    return [template.format(entity) for template in TEMPLATES[media] for entity in entities]


def ensemble(embeddings: Tensor, *, num_entities: int) -> Tensor:
    """Means (K, E) of the prompts' (M*K, E) unit vectors, ordered as by `prompts_of`.

    As in the original they are not unit vectors: an entity whose prompts disagree is less similar
    to everything.
    """
    return embeddings.unflatten(0, (-1, num_entities)).mean(dim=0)


def check_prompts(tokenize: Tokenize, entities: Sequence[str]) -> None:
    """Check that the prompts of entities are short enough.

    `tokenize` may cut texts, but not below `MAX_PROMPT_TOKENS` + 1 tokens.

    Raises:
        InputError: an entity's prompt has more than `MAX_PROMPT_TOKENS` tokens.
    """
    for media in TEMPLATES:
        prompts = prompts_of(entities, media)
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            _tokenized(tokenize, prompts[start : start + PROMPTS_AT_ONCE])


def _tokenized(tokenize: Tokenize, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask (len(prompts), L); refuses prompts that are too long."""
    ids, mask = tokenize(prompts)
    too_long = (mask.sum(dim=1) > MAX_PROMPT_TOKENS).nonzero().flatten().tolist()
    if too_long:
        raise InputError(
            f"entity_file_path: the prompt {prompts[too_long[0]]!r} has more than "
            f"{MAX_PROMPT_TOKENS} tokens. Shorten that entity, or take it out of the file."
        )
    return ids, mask


class Prompter(AlproModel):
    """Two encoders in one space, and the embeddings of the prompts of K entities.

    ``itm_head``, the fusion layers and the language head are here because released checkpoints have
    them. Nothing reads them, so they are frozen. See `AlproModel` for the arguments.
    """

    text_encoder: SplitBert
    video_prompt_feat: Tensor
    image_prompt_feat: Tensor

    def __init__(
        self,
        visual_encoder: VideoEncoder,
        text_encoder: SplitBert,
        *,
        num_entities: int,
        embed_dim: int = 256,
        pooling: Pooling = "cls",
    ) -> None:
        super().__init__(visual_encoder, text_encoder, embed_dim=embed_dim, pooling=pooling)
        if num_entities < 1:
            raise ValueError(f"num_entities {num_entities}: a prompter needs an entity")
        self.num_entities = num_entities
        # Parts of released checkpoints that nothing reads.
        self.itm_head = nn.Linear(text_encoder.width, 2).requires_grad_(False)
        for layer in text_encoder.layers[text_encoder.fusion_layer :]:
            layer.requires_grad_(False)
        # Random until `build_prompts` or a checkpoint fills them.
        self.register_buffer("video_prompt_feat", torch.rand(num_entities, embed_dim))
        self.register_buffer("image_prompt_feat", torch.rand(num_entities, embed_dim))

    def prompt_embeddings(self, media: Media) -> Tensor:
        """Prompt embeddings (K, E) that a clip or an image is compared with."""
        return self.video_prompt_feat if media == "video" else self.image_prompt_feat

    @torch.no_grad()
    def build_prompts(self, tokenize: Tokenize, entities: Sequence[str]) -> None:
        """Fill both buffers with the prompts of the K entities; see `check_prompts`.

        Raises:
            InputError: an entity's prompt has more than `MAX_PROMPT_TOKENS` tokens.
        """
        if len(entities) != self.num_entities:
            raise ValueError(f"{len(entities)} entities for a prompter of {self.num_entities}")
        # Encode without dropout, in chunks that bound the memory.
        was_training, device = self.training, self.video_prompt_feat.device
        self.eval()
        for media in TEMPLATES:
            prompts = prompts_of(entities, media)
            embeddings = []
            for start in range(0, len(prompts), PROMPTS_AT_ONCE):
                ids, mask = _tokenized(tokenize, prompts[start : start + PROMPTS_AT_ONCE])
                embeddings.append(self.encode_text(ids.to(device), mask.to(device)).embedding)
            # One embedding per entity: the mean over its templates.
            means = ensemble(torch.cat(embeddings), num_entities=self.num_entities)
            self.prompt_embeddings(media).copy_(means)
        self.train(was_training)

    @torch.no_grad()
    def entity_probabilities(
        self, frames: Tensor, media: Media, *, region: Tensor | None = None
    ) -> Tensor:
        """Probability of each entity in a region.

        Args:
            frames: (B, T, 3, S, S) normalised, erased outside the region.
            media: selects the prompts.
            region: (B, P, P) bool, true inside, see `encode_video`; None for everywhere.

        Returns:
            (B, K) float32, each row of sum 1.
        """
        embedding = self.encode_video(frames, region=region).embedding  # (B, E)
        # The softmax is sharp at this temperature: similarities in float32.
        with torch.autocast(frames.device.type, enabled=False):
            prompts = self.prompt_embeddings(media).float()
            scores = functional.linear(embedding.float(), prompts) / self.temp.float()
        return scores.softmax(dim=1)


class PrompterObjective(PairObjective):
    """VTC between captions and videos or images (ALPRO section 3.3)."""

    def forward(self, batch: PretrainBatch) -> dict[str, Tensor]:
        """``loss``, which is ``itc_loss``, and the accuracies of both directions."""
        self.model.clamp_temperature()
        itc = self._measure(batch, engine=self._engine)
        return {"loss": itc.loss, **itc.values("itc")}

    def measure_all(
        self,
        batch: PretrainBatch,
        *,
        engine: Engine,
        generator: torch.Generator,  # noqa: ARG002  # nothing is drawn
    ) -> Mapping[str, LossWithMetrics]:
        """VTC of B pairs, with the pairs of an engine's ranks as negatives."""
        return {"itc": self._measure(batch, engine=engine)}

    def _measure(self, batch: PretrainBatch, *, engine: Engine) -> LossWithMetrics:
        video = self._encode_videos(batch.frames)
        text = self._encode_texts(batch.text_ids, batch.text_mask)
        return measure_contrast(video, text, gathered=self._gathered(batch, engine=engine))


def load_teacher(prompter: Prompter, path: Path) -> None:
    """Fill the prompter of pretraining from a checkpoint, all but its prompts.

    Any checkpoint with both encoders will do. Of a pretraining checkpoint the model itself becomes
    the teacher, not the prompter that taught it.

    Raises:
        InputError: if the file is no checkpoint or of another architecture.
    """
    # Errors name the config key of the teacher.
    try:
        load_checkpoint(
            prompter,
            path,
            layout=CHECKPOINT,
            allowed_missing=UNUSED_BY_PROMPTER,
            silently_missing=PROMPT_NAMES,
            prepare=without_prompts,
        )
    except InputError as error:
        raise InputError(f"teacher_weights_path: {error}") from error
    logger.info("%s: its prompts are built from the list of entities", path)


def without_prompts(state: StateDict) -> StateDict:
    """A checkpoint's tensors without those made of a list of entities."""
    return {name: value for name, value in state.items() if name not in PROMPT_NAMES}
