"""BERT split into a text encoder (lower layers) and a fusion encoder (upper layers).

B: batch, L: text tokens, M: tokens of a sequence, D: width.

The layers are those of transformers, run by `run_layer` instead of their `forward`: attention is
the project's function, and the last layer can be limited to the tokens that are read.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertModel
from transformers.models.bert.modeling_bert import BertEmbeddings, BertEncoder, BertLayer

from alpro.modeling.attention import Kernel, dot_product_attention, merge_heads, split_heads
from alpro.modeling.contracts import TextEncoder

MASKED_SCORE = -10000.0  # added to the attention scores of padding, as in the original


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, M) of 1 (token) and 0 (padding) to a (B, 1, 1, M) bias of attention scores."""
    return ((1.0 - mask.to(dtype)) * MASKED_SCORE)[:, None, None, :]


def run_layer(
    layer: BertLayer,
    hidden: Tensor,
    bias: Tensor,
    *,
    kernel: Kernel,
    num_queries: int | None = None,
) -> Tensor:
    """One BERT layer (post-norm), for all positions or only for the first few.

    Args:
        layer: BERT layer of transformers.
        hidden: (B, M, D).
        bias: (B, 1, 1, M), see `additive_mask`.
        kernel: See `dot_product_attention`.
        num_queries: Leading positions to compute; None for all M.

    Returns:
        (B, num_queries, D).
    """
    # Self-attention of the first positions over all of them, then output layer and MLP.
    attention = layer.attention.self
    num_heads = attention.num_attention_heads
    queries = hidden if num_queries is None else hidden[:, :num_queries]
    attended = dot_product_attention(
        split_heads(attention.query(queries), num_heads),
        split_heads(attention.key(hidden), num_heads),
        split_heads(attention.value(hidden), num_heads),
        bias=bias,
        dropout_p=attention.dropout.p if attention.training else 0.0,
        kernel=kernel,
    )
    attended = layer.attention.output(merge_heads(attended), queries)
    return layer.output(layer.intermediate(attended), attended)


class SplitBertBase(TextEncoder):
    """BERT whose layers below `fusion_layer` encode text and whose others fuse text and video.

    The two subclasses differ in parameter names, which are those of the released checkpoints, and
    in the masked language head.

    Args:
        num_hidden_layers: Layers of both parts together.
        fusion_layer: First layer of the fusion encoder.
        attention: Kernel of `dot_product_attention`.
        sizes: Further ones of transformers' `BertConfig`, whose defaults are BERT-base's. Of the
            token type embedding only row 0 is used, and row `pad_token_id` of the word embedding
            receives no gradient.
    """

    def __init__(
        self,
        *,
        num_hidden_layers: int = 12,
        fusion_layer: int = 6,
        attention: Kernel = "auto",
        **sizes: Any,
    ) -> None:
        super().__init__()
        if not 0 <= fusion_layer < num_hidden_layers:
            raise ValueError(
                f"fusion_layer {fusion_layer} is not one of the {num_hidden_layers} layers"
            )
        self.bert_config = BertConfig(num_hidden_layers=num_hidden_layers, **sizes)
        self.width = self.bert_config.hidden_size
        self.fusion_layer = fusion_layer
        self.kernel: Kernel = attention

    @abstractmethod
    def parts(self) -> tuple[BertEmbeddings, BertEncoder]:
        """Embeddings and encoder, which subclasses hold under different names."""

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and (B, L) mask of 0/1 to (B, L, D) tokens."""
        embeddings, _ = self.parts()
        hidden = embeddings(input_ids=ids)  # (B, L, D)
        return self._run(self.layers[: self.fusion_layer], hidden, mask)

    def fuse(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, M, D) text and video tokens and their (B, M) mask to (B, M, D)."""
        return self._run(self.layers[self.fusion_layer :], tokens, mask)

    def fuse_first(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """``fuse(tokens, mask)[:, 0]``, (B, D), with the last layer run for that position only."""
        hidden = self._run(self.layers[self.fusion_layer : -1], tokens, mask)
        bias = additive_mask(mask, hidden.dtype)
        return run_layer(self.layers[-1], hidden, bias, kernel=self.kernel, num_queries=1)[:, 0]

    @property
    def layers(self) -> list[BertLayer]:
        """Layers of the text encoder, then those of the fusion encoder."""
        _, encoder = self.parts()
        return cast("list[BertLayer]", list(encoder.layer))

    def _run(self, layers: list[BertLayer], hidden: Tensor, mask: Tensor) -> Tensor:
        bias = additive_mask(mask, hidden.dtype)  # (B, 1, 1, M)
        for layer in layers:
            hidden = run_layer(layer, hidden, bias, kernel=self.kernel)
        return hidden


class SplitBert(SplitBertBase):
    """BERT of retrieval and pretraining: ``bert.*``, and the masked language head ``cls.*``.

    Args:
        with_mlm_head: Whether ``cls.*`` exists. Its decoder is tied to the word embeddings.
        train_mlm_head: Whether ``cls.*`` is trained; without a masked language loss it only keeps
            the checkpoint complete.
        sizes: Arguments of `SplitBertBase`.
    """

    def __init__(
        self, *, with_mlm_head: bool = True, train_mlm_head: bool = False, **sizes: Any
    ) -> None:
        super().__init__(**sizes)
        whole = BertForMaskedLM(self.bert_config)
        self.bert = whole.bert
        _store_position_ids(self.bert.embeddings)
        if with_mlm_head:
            self.cls = whole.cls
            self.cls.predictions.transform.requires_grad_(train_mlm_head)
            self.cls.predictions.bias.requires_grad_(train_mlm_head)

    def parts(self) -> tuple[BertEmbeddings, BertEncoder]:
        """``bert.embeddings`` and ``bert.encoder``."""
        return self.bert.embeddings, self.bert.encoder

    def predict_words(self, tokens: Tensor) -> Tensor:
        """(n, D) fused tokens to vocabulary logits (n, V)."""
        return self.cls(tokens)


class SplitBertEncoder(SplitBertBase):
    """BERT of question answering: ``embeddings.*`` and ``encoder.*``, without a head."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        body = BertModel(self.bert_config, add_pooling_layer=False)
        self.embeddings = body.embeddings
        self.encoder = body.encoder
        _store_position_ids(self.embeddings)

    def parts(self) -> tuple[BertEmbeddings, BertEncoder]:
        """``embeddings`` and ``encoder``."""
        return self.embeddings, self.encoder


def _store_position_ids(embeddings: BertEmbeddings) -> None:
    # Released checkpoints hold the position ids, transformers leaves them out.
    embeddings.register_buffer("position_ids", embeddings.position_ids, persistent=True)
