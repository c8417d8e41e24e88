"""The tokenizer of the demo dataset: every word of its texts and its prompts is one token."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from alpro.commands.demo import noise, questions, stills
from alpro.commands.demo.captions import PASSING_TEMPLATES, PHRASES, TEMPLATES
from alpro.commands.demo.scenes import COLORS, SHAPES

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def vocabulary() -> list[str]:
    """Return the tokens in order of their ids.

    Letters and digits follow the words of the captions, so that an unknown word is spelled, not
    lost; the words that only questions have, and those that only pretraining has, come last.
    """
    spoken, asked, noised = caption_words(), _question_words(), _pretraining_words()
    # Single characters and their continuations spell unknown words.
    characters = string.ascii_lowercase + string.digits
    pieces = [*characters, *(f"##{character}" for character in characters)]
    longer = sorted(word for word in spoken if len(word) > 1)
    last = [*sorted(asked - spoken), *sorted(noised - asked - spoken)]
    return [*SPECIAL_TOKENS, *",.?", *longer, *pieces, *last]


def caption_words() -> set[str]:
    """Words of the captions of finetuning and evaluation."""
    templates = [*chain(*TEMPLATES.values()), *PASSING_TEMPLATES]
    phrases = [text for p in PHRASES.values() for text in (p.finite, p.gerund)]
    fields = {name: "" for name in ("a", "b", "x", "x_ing", "y", "y_ing")}
    texts = [*(template.format(**fields) for template in templates), *phrases]
    return {"a", *COLORS, *SHAPES, *_words(texts)}


def _question_words() -> set[str]:
    fields = {name: "" for name in ("thing", "color", "shape", "do", "does", "which")}
    texts = [template.format(**fields) for template in questions.TEMPLATES]
    verbs = [text for kind in questions.ACTION_KINDS.values() for text in (kind.do, kind.does)]
    return _words([*texts, *verbs, *questions.WHICH, *questions.ACTS_IN_ORDER])


def _pretraining_words() -> set[str]:
    """Words of noisy captions, of images' captions and of the prompts about entities."""
    phrases = [*noise.BACKGROUND_PHRASES.values(), *noise.VIDEO_WRAPPERS, *noise.IMAGE_WRAPPERS]
    templates = [*stills.LONELY_TEMPLATES, *stills.CORNER_TEMPLATES, *stills.RELATION_TEMPLATES]
    fields = {name: "" for name in ("a", "b", "corner", "relation")}
    texts = [*(template.format(**fields) for template in templates), *stills.CORNERS]
    wrapped = [phrase.replace("{}", "") for phrase in phrases]
    return _words([*texts, *wrapped, *stills.BESIDE, *stills.OVER])


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in text.replace(",", " ").replace("?", " ").split()}


def write_tokenizer(folder: Path) -> None:
    """Write the two files that ``BertTokenizerFast.from_pretrained(folder)`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
