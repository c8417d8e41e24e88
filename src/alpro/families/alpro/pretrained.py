"""Filling a model from local files: a checkpoint, an image transformer and a BERT, a teacher."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import filter as names_like
from pathlib import Path

from torch import Tensor, nn

from alpro.errors import InputError
from alpro.families.alpro.pretraining_model import ENTITY_HEAD_OUTPUT, PROMPTER_PREFIX
from alpro.families.alpro.prompter import PROMPT_NAMES, UNUSED_BY_PROMPTER, Prompter
from alpro.modeling.state_dict_adapter import (
    POSITION_IDS,
    adapt_state_dict,
    compare,
    describe_adaptation,
    unusable,
)
from alpro.modeling.state_dict_maps import (
    BERT_LEAVES_AT_INIT,
    BERT_ROOTS,
    TEXT_PREFIX,
    TRANSFORMERS_VIT_ROOTS,
    VIDEO_PREFIX,
    VIT_LEAVES_AT_INIT,
    VIT_ROOTS,
    StateDict,
    from_bert,
    from_vit,
)
from alpro.training.state_dicts import hint_of, read_checkpoint, read_state
from alpro.training.weight_files import find_weights

logger = logging.getLogger(__name__)

VIT_NAME = "vit_base_patch16_224"
VIT_SOURCE = (
    "timm's vit_base_patch16_224 (AugReg, ImageNet-21k then 1k), model.safetensors or a .pth file"
)
BERT_SOURCE = "bert-base-uncased's model.safetensors or pytorch_model.bin from the Hugging Face hub"
NEVER_USED = ("*visual_encoder.model.head.*",)  # patterns of what every model has and none reads
MAX_NAMED = 5

Prepare = Callable[[StateDict], StateDict]
"""Takes what a checkpoint file holds, judges it, and returns what is wanted of it."""


def load_checkpoint(
    model: nn.Module,
    path: Path,
    *,
    allowed_missing: Sequence[str] = (),
    silently_missing: Sequence[str] = (),
    prepare: Prepare | None = None,
) -> None:
    """Fill a model from a checkpoint in ALPRO's names.

    Time and position embeddings are resized to the model; heads of other tasks are left out. The
    state dict may be wrapped, see :func:`extract_state_dict`.

    Args:
        model: to be filled.
        path: of the checkpoint.
        allowed_missing: patterns such as ``classifier.*``. Where the file has no tensor at all
            of a pattern, those of the model stay as initialised. All others must be there.
        silently_missing: what may be missing, too, and is not told of: the caller does.
        prepare: applied to the checkpoint's tensors before they are fitted to the model.

    Raises:
        InputError: if the file is of another architecture, naming keys and shapes, or none at all.
    """
    state = read_checkpoint(path)
    if prepare is not None:
        state = prepare(state)
    expected = model.state_dict()
    for note in describe_adaptation(state, expected):
        logger.info("%s: %s", path, note)
    adapted = adapt_state_dict(state, expected)
    # Position ids tell nothing: they are filled in where a checkpoint lacks them.
    relevant = [name for name in adapted if not name.endswith(POSITION_IDS)]
    patterns = (*allowed_missing, *silently_missing)
    absent = [pattern for pattern in patterns if not names_like(relevant, pattern)]
    _fill(model, adapted, path=path, allowed_missing=absent)
    new = compare(adapted, model).missing
    for pattern in allowed_missing:
        if pattern in absent:
            count = len(names_like(new, pattern))
            some = f"1 tensor {pattern}, which starts as a new one"
            many = f"{count} tensors {pattern}, which start as new ones"
            logger.info("%s: it lacks %s", path, some if count == 1 else many)
    num_loaded = len(expected) - len(new)
    logger.info("%s: %d of the %d tensors of the model loaded", path, num_loaded, len(expected))


def load_teacher(prompter: Prompter, path: Path) -> None:
    """Fill the prompter of pretraining from a checkpoint, all but its prompts.

    Any checkpoint with both encoders will do. Of a pretraining checkpoint the model itself becomes
    the teacher, not the prompter that taught it.

    Args:
        prompter: keeps the prompts it has, whatever entities the checkpoint's were made of.
        path: of the checkpoint; ``teacher_weights_path`` in the configs.

    Raises:
        InputError: if the file is none or of another architecture.
    """
    try:
        load_checkpoint(
            prompter,
            path,
            allowed_missing=UNUSED_BY_PROMPTER,
            silently_missing=PROMPT_NAMES,
            prepare=without_prompts,
        )
    except InputError as error:
        raise InputError(f"teacher_weights_path: {error}") from error
    logger.info("%s: its prompts are made anew from the list of entities", path)


def without_prompts(state: StateDict) -> StateDict:
    """A checkpoint's tensors without those made of a list of entities."""
    return {name: value for name, value in state.items() if name not in PROMPT_NAMES}


def check_num_entities(
    shapes: Mapping[str, Sequence[int]], *, num_entities: int, path: Path
) -> None:
    """Check that a pretraining checkpoint knows as many entities as the model.

    Args:
        shapes: of its tensors, from :func:`read_shapes`.
        num_entities: of the model.
        path: of the checkpoint, for the error.

    Raises:
        InputError: if it knows another number.
    """
    for name in (ENTITY_HEAD_OUTPUT, *(PROMPTER_PREFIX + name for name in PROMPT_NAMES)):
        if name in shapes and shapes[name][0] != num_entities:
            there = shapes[name][0]
            raise InputError(
                f"e2e_weights_path: {path} was pretrained with {there} entities, num_entities is "
                f"{num_entities}. Set num_entities to {there}, with the list of entities that it "
                "was trained with as entity_file_path."
            )


def load_vit(model: nn.Module, path: Path) -> None:
    """Start the video encoder from an image transformer; what it lacks stays as initialised."""
    file = find_weights(path, key="visual_weights_path", source=VIT_SOURCE)
    _load_part(
        model,
        file,
        roots=(VIT_ROOTS, TRANSFORMERS_VIT_ROOTS),
        rename=from_vit,
        prefix=VIDEO_PREFIX,
        source=VIT_SOURCE,
        allowed_missing=VIT_LEAVES_AT_INIT,
    )


def load_bert(model: nn.Module, path: Path) -> None:
    """Start the text and fusion encoder from a BERT."""
    file = find_weights(path, key="bert_weights_path", source=BERT_SOURCE)
    _load_part(
        model,
        file,
        roots=(BERT_ROOTS,),
        rename=from_bert,
        prefix=TEXT_PREFIX,
        source=BERT_SOURCE,
        allowed_missing=BERT_LEAVES_AT_INIT,
    )


def load_starting_weights(
    model: nn.Module,
    *,
    checkpoint: Path | None,
    vit: Path | None,
    bert: Path,
    random_init: bool,
    allowed_missing: Sequence[str] = (),
    prepare: Prepare | None = None,
) -> None:
    """Give a model its starting weights.

    Args:
        model: freshly initialised.
        checkpoint: a whole model; the other files are then not asked for.
        vit: image transformer for the video encoder, a file or a folder.
        bert: BERT for the text and fusion encoder, a file or a folder.
        random_init: starting from random weights is meant.
        allowed_missing: what a checkpoint may lack, see :func:`load_checkpoint`.
        prepare: applied to a checkpoint's tensors, see :func:`load_checkpoint`.

    Raises:
        InputError: if there is nothing to start from and ``random_init`` does not say that this is
            meant, or a file does not fit.
    """
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, allowed_missing=allowed_missing, prepare=prepare)
    elif random_init:
        logger.info("starting from random weights (random_init)")
    elif vit is None:
        raise InputError(
            "e2e_weights_path: nothing to start from. Name a checkpoint there, or an image "
            f"transformer as visual_weights_path ({VIT_SOURCE}), or set random_init to 1 if random "
            "weights are meant."
        )
    else:
        load_vit(model, vit)
        load_bert(model, bert)


def resolve_vit(name: str | None) -> Path | None:
    """Path of the image transformer: the known name means its folder under ``ext/``."""
    if name is None:
        return None
    return Path("ext") / VIT_NAME if name == VIT_NAME else Path(name)


def _load_part(
    model: nn.Module,
    file: Path,
    *,
    roots: Sequence[Sequence[str]],
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    prefix: str,
    source: str,
    allowed_missing: Sequence[str],
) -> None:
    expected = {k: v for k, v in model.state_dict().items() if k.startswith(prefix)}
    state = adapt_state_dict(rename(read_state(file, *roots)), expected)
    _fill(
        model, state, path=file, prefix=prefix, allowed_missing=allowed_missing,
        wanted=f"Wanted is {source}.",
    )  # fmt: skip
    logger.info("%s: %d of the %d tensors of %s* loaded", file, len(state), len(expected), prefix)


def _fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    path: Path,
    prefix: str = "",
    allowed_missing: Sequence[str] = (),
    wanted: str = "",
) -> None:
    mismatch = compare(state, model, allowed_missing=[*allowed_missing, *NEVER_USED])
    own = [key for key in mismatch.missing if key.startswith(prefix)]
    mismatch = replace(mismatch, missing=own)
    if mismatch:
        advice = f"{hint_of(path)} {wanted}".strip()
        listed = "\n".join(filter(None, [mismatch.describe(), advice]))
        raise InputError(
            f"{path}: this checkpoint is of another architecture than the model of "
            f"visual_model_cfg and model_config:\n{listed}"
        )
    if problems := unusable(state, model.state_dict()):
        listed = "\n".join(problems[:MAX_NAMED])
        rest = len(problems) - MAX_NAMED
        more = f"\n{rest} more" if rest > 0 else ""
        raise InputError(
            f"{path}: these tensors cannot be used:\n{listed}{more}\nName another checkpoint."
        )
    model.load_state_dict(dict(state), strict=False)
