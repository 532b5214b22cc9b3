"""BERT in one file (Devlin et al. 2019, https://arxiv.org/abs/1810.04805). Read from top to bottom, it teaches BERT.

Everything runs on packed tokens: no tensor here has a padding position. Parameter names are those of ``transformers``
without their ``bert.`` prefix, with one difference: query, key and value of a layer are one matrix.

Shapes: T tokens of a packed batch, R rows that a head reads, B sequences, H width, A heads, D width of a head,
F feed-forward width, V vocabulary, M masked positions, C classes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bertwright.attention import attention
from bertwright.data.packing import PackedBatch, Rows
from bertwright.errors import BertwrightError, did_you_mean
from bertwright.linear import Linear
from bertwright.masked_loss import masked_word_loss
from bertwright.noise import Noise, add_dropout, dropout


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


# The names that published BERT configs use; "gelu" is the paper's, through the error function.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The fields of BERT's ``config.json`` that shape the model; the defaults are bert-base-uncased's."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    classifier_dropout: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BertwrightError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.hidden_size % self.num_attention_heads:
            raise BertwrightError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}"
            )
        if not isinstance(self.hidden_act, str) or self.hidden_act not in ACTIVATIONS:
            raise BertwrightError(
                f"hidden_act {self.hidden_act!r} is not known{did_you_mean(str(self.hidden_act), ACTIVATIONS)} "
                f"(known: {', '.join(ACTIVATIONS)})"
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 <= value < 1):
                raise BertwrightError(f"{name} must lie in [0, 1), not {value!r}")
        for name in ("initializer_range", "layer_norm_eps"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise BertwrightError(f"{name} must be a number above 0, not {value!r}")
        if not isinstance(self.pad_token_id, int) or not 0 <= self.pad_token_id < self.vocab_size:
            raise BertwrightError(f"pad_token_id must be one of the {self.vocab_size} token ids, not {self.pad_token_id!r}")

    @classmethod
    def preset(cls, name: str, vocab_size: int = 30522) -> BertConfig:
        """One of the published sizes: tiny, mini, small, medium (Turc et al. 2019), base, large (Devlin et al. 2019)."""
        if name not in PRESETS:
            raise BertwrightError(f"no preset {name!r}{did_you_mean(name, PRESETS)} (known: {', '.join(PRESETS)})")
        layers, width, heads = PRESETS[name]
        return cls(
            vocab_size=vocab_size,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
        )

    @classmethod
    def chosen(cls, name: str, vocab_size: int, *, of: str) -> BertConfig:
        """A published size by its name, or what the config.json of this path says; the vocabulary is that ``of``.

        Raises:
            BertwrightError: no such size; a file that cannot be read, is no config of a BERT or has too few words.
        """
        if not name.endswith(".json"):
            return cls.preset(name, vocab_size)
        try:
            values = json.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BertwrightError(f"{name}: cannot read this config ({error})") from None
        if not isinstance(values, dict):
            raise BertwrightError(f"{name}: not a config.json: it holds no object")
        config = cls.from_dict({"vocab_size": vocab_size, **values}, name)
        if config.vocab_size < vocab_size:
            raise BertwrightError(
                f"{name}: vocab_size is {config.vocab_size}, but {of} has {vocab_size} entries; give at least that"
            )
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> BertConfig:
        """Read a ``config.json`` that was parsed from ``where``.

        Raises:
            BertwrightError: for a model that is not BERT or a BERT that this code would compute wrongly.
        """
        model_type = values.get("model_type", "bert")
        if model_type != "bert":
            raise BertwrightError(f"{where}: model_type is {model_type!r}; only 'bert' models can be loaded")
        position = values.get("position_embedding_type") or "absolute"
        if position != "absolute":
            raise BertwrightError(
                f"{where}: position_embedding_type is {position!r}; only 'absolute' (learned) positions can be loaded"
            )
        for flag in ("is_decoder", "add_cross_attention"):
            if values.get(flag):
                raise BertwrightError(f"{where}: {flag} is set; only encoders can be loaded")
        fields = {f.name for f in dataclasses.fields(cls)}
        # Weights of another number of heads have the same shapes: with heads guessed, nothing would tell.
        needed = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        missing = [name for name in needed if values.get(name) is None]
        if missing:
            raise BertwrightError(f"{where}: has no {missing[0]!r}; it is not the config.json of a BERT")
        try:
            return cls(**{k: v for k, v in values.items() if k in fields and v is not None})
        except BertwrightError as error:
            raise BertwrightError(f"{where}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The fields as ``config.json`` has them, with those that ``transformers`` wants beside them."""
        return {"model_type": "bert", "position_embedding_type": "absolute", **dataclasses.asdict(self)}


# layers, width, heads
PRESETS: dict[str, tuple[int, int, int]] = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


class LayerNorm(nn.LayerNorm):
    """Layer normalisation with BERT's epsilon."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config.hidden_size, eps=config.layer_norm_eps)


class Embeddings(nn.Module):
    """The sum of word, position and segment embeddings, normalised (section 3, figure 2)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config)
        self.dropout = config.hidden_dropout_prob

    def forward(self, batch: PackedBatch, noise: Noise | None = None) -> Tensor:
        """Return hidden_TH."""
        hidden_TH = (
            self.word_embeddings(batch.input_ids_T)
            + self.position_embeddings(batch.position_ids_T)
            + self.token_type_embeddings(batch.token_type_ids_T)
        )
        return dropout(self.LayerNorm(hidden_TH), self.dropout, noise)


class SelfAttention(nn.Module):
    """Multi-head self-attention: one product for query, key and value, then attention inside each sequence."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)

    def forward(self, hidden_TH: Tensor, batch: PackedBatch, rows: Rows | None, noise: Noise | None) -> Tensor:
        """Return context_RH."""
        T, H = hidden_TH.shape
        qkv_T3AD = self.qkv(hidden_TH).view(T, 3, self.heads, H // self.heads)
        return attention(qkv_T3AD, batch.sequences, rows, self.dropout, noise)


class AddNorm(nn.Module):
    """Project, drop out, add the residual, normalise: how both halves of a layer end (post-layer-norm)."""

    def __init__(self, config: BertConfig, width_in: int) -> None:
        super().__init__()
        self.dense = Linear(width_in, config.hidden_size)
        self.LayerNorm = LayerNorm(config)
        self.dropout = config.hidden_dropout_prob

    def forward(self, values_RF: Tensor, residual_RH: Tensor, noise: Noise | None) -> Tensor:
        """Return hidden_RH."""
        normalised: Tensor = self.LayerNorm(add_dropout(residual_RH, self.dense(values_RF), self.dropout, noise))
        return normalised


class Attention(nn.Module):
    """The first half of a layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = AddNorm(config, config.hidden_size)

    def forward(self, hidden_TH: Tensor, batch: PackedBatch, rows: Rows | None, noise: Noise | None) -> Tensor:
        """Return hidden_RH."""
        context_RH = self.self(hidden_TH, batch, rows, noise)
        residual_RH = hidden_TH if rows is None else hidden_TH.index_select(0, rows.index_R)
        hidden_RH: Tensor = self.output(context_RH, residual_RH, noise)
        return hidden_RH


class Intermediate(nn.Module):
    """The widening half of the feed-forward network."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, hidden_RH: Tensor) -> Tensor:
        """Return the activations, of shape (R, F)."""
        return self.activation(self.dense(hidden_RH))


class Layer(nn.Module):
    """One Transformer layer: attention, then the feed-forward network."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config, config.intermediate_size)

    def forward(self, hidden_TH: Tensor, batch: PackedBatch, rows: Rows | None, noise: Noise | None) -> Tensor:
        """Return hidden_RH."""
        hidden_RH = self.attention(hidden_TH, batch, rows, noise)
        out_RH: Tensor = self.output(self.intermediate(hidden_RH), hidden_RH, noise)
        return out_RH


class Encoder(nn.Module):
    """The stack of layers.

    With ``recompute`` set, a layer's activations are not kept for its backward pass but computed again there.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.recompute = False

    def forward(
        self,
        hidden_TH: Tensor,
        batch: PackedBatch,
        rows: Rows | None = None,
        noise: Noise | None = None,
        start: int = 0,
    ) -> Tensor:
        """Return the last layer's hidden_RH for ``rows`` (None: all tokens), beginning at layer ``start``.

        The last layer computes only the rows that are asked for: of its work, all but keys and values is done for
        them alone. For a head that reads [CLS], that saves nearly a whole layer, and nothing in the result changes.
        """
        last = len(self.layer) - 1
        for number in range(start, last + 1):
            layer = partial(self.layer[number], batch=batch, rows=rows if number == last else None, noise=noise)
            if self.recompute and torch.is_grad_enabled():
                hidden_TH = checkpoint(_repeatable(layer, noise), hidden_TH, use_reentrant=False)
            else:
                hidden_TH = layer(hidden_TH)
        return hidden_TH


def _repeatable(layer: Callable[[Tensor], Tensor], noise: Noise | None) -> Callable[[Tensor], Tensor]:
    """A layer that draws the same masks each time it is called."""
    back = noise.again() if noise is not None else None

    def call(hidden_TH: Tensor) -> Tensor:
        if back is not None:
            back()
        return layer(hidden_TH)

    return call


class Pooler(nn.Module):
    """A dense layer and tanh on [CLS], as next sentence prediction was trained on it."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, cls_BH: Tensor) -> Tensor:
        """Return pooled_BH."""
        return torch.tanh(self.dense(cls_BH))


class Bert(nn.Module):
    """The encoder alone, with its pooler: what ``transformers`` calls BertModel."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
        initialise(self, config)

    def forward(self, batch: PackedBatch, rows: Rows | None = None, noise: Noise | None = None) -> Tensor:
        """Return the last layer's hidden_RH for ``rows`` (None: all tokens, in packed order)."""
        hidden_RH: Tensor = self.encoder(self.embeddings(batch, noise), batch, rows, noise)
        return hidden_RH


class Headed(nn.Module):
    """BERT with a head of its own for a task (section 4): the head reads the rows that a batch names.

    The first ``frozen`` parts (1: embeddings, 1 + n: n layers too) get no gradient, no dropout and no backward pass.

    Dense layers with GELU may stand below the last one (``head_layers`` of them, ``head_size`` wide); ``transformers``
    has no class for such a head, so only the encoder of such a model opens there.
    """

    LAST = "classifier"  # the last layer, where it is all the head
    DROPS_FEATURES = True  # whether the head itself has dropout on what it reads

    def __init__(self, config: BertConfig, *, head_layers: int, head_size: int) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        widths = [config.hidden_size, *[head_size] * head_layers]
        self.head = nn.ModuleList(Linear(i, o) for i, o in itertools.pairwise(widths))
        self.width = widths[-1]  # of what the last layer reads
        dropout = config.classifier_dropout
        self.dropout = config.hidden_dropout_prob if dropout is None else dropout
        self.frozen = 0

    def add_last(self, outputs: int) -> None:
        """Add the last layer. Above dense ones it is one of them by name: transformers would take it for the whole head."""
        layer = Linear(self.width, outputs)
        if len(self.head):
            self.head.append(layer)
        else:
            self.add_module(self.LAST, layer)

    @property
    def last(self) -> Linear:
        """The last layer."""
        layer = self.head[-1] if len(self.head) else self.get_submodule(self.LAST)
        assert isinstance(layer, Linear)
        return layer

    def freeze(self, parts: int) -> None:
        """Freeze the embeddings (1) and the layers above them (1 + n for the first n); 0 trains everything."""
        self.frozen = parts
        bottom = [self.embeddings, *self.encoder.layer]
        for number, module in enumerate(bottom):
            module.requires_grad_(number >= parts)

    @property
    def draws_masks(self) -> bool:
        """Whether training has any dropout: in a layer that is trained, or in the head."""
        below = self.frozen <= len(self.encoder.layer)
        in_layers = below and max(self.config.hidden_dropout_prob, self.config.attention_probs_dropout_prob) > 0
        return in_layers or (self.dropout > 0 and (self.DROPS_FEATURES or len(self.head) > 0))

    def features(self, batch: PackedBatch, noise: Noise | None = None) -> Tensor:
        """Return features_RH, the last layer's hidden states of the rows that the head reads, in packed order."""
        rows: Rows | None = batch.read()
        if rows is not None and len(rows.counts) and sum(rows.counts) == batch.tokens:
            rows = None  # all of them: nothing to pick
        hidden_TH: Tensor = self.embeddings(batch, None if self.frozen else noise)
        layers = max(self.frozen - 1, 0)
        depth = len(self.encoder.layer)
        for number in range(layers):
            hidden_TH = self.encoder.layer[number](hidden_TH, batch, rows if number == depth - 1 else None, None)
        if layers < depth:
            hidden_TH = self.encoder(hidden_TH, batch, rows, noise, start=layers)
        return hidden_TH

    def own_layers(self, features_RH: Tensor, noise: Noise | None) -> Tensor:
        """Pass features through the dense layers below the last."""
        for layer in list(self.head)[:-1]:
            features_RH = dropout(F.gelu(layer(features_RH)), self.dropout, noise)
        return features_RH

    def classify(self, features_RH: Tensor, noise: Noise | None = None) -> Tensor:
        """Return logits_RC for features that :meth:`features` gave."""
        raise NotImplementedError

    def forward(self, batch: PackedBatch, noise: Noise | None = None) -> Tensor:
        """Return logits_RC for the rows that the head reads, in packed order."""
        return self.classify(self.features(batch, noise), noise)


class SequenceClassifier(Headed):
    """A linear layer on the pooled [CLS] (section 4.1): classes or a score of a text or a pair, or of a choice (4.4)."""

    def __init__(self, config: BertConfig, classes: int, *, head_layers: int = 0, head_size: int = 0) -> None:
        super().__init__(config, head_layers=head_layers, head_size=head_size)
        self.pooler = Pooler(config)
        self.add_last(classes)
        initialise(self, config)

    def classify(self, features_RH: Tensor, noise: Noise | None = None) -> Tensor:
        """Return logits_BC."""
        hidden = self.own_layers(dropout(self.pooler(features_RH), self.dropout, noise), noise)
        logits_BC: Tensor = self.last(hidden)
        return logits_BC


class TokenClassifier(Headed):
    """A linear layer on every token that is read (section 5.3): tags of words."""

    def __init__(self, config: BertConfig, classes: int, *, head_layers: int = 0, head_size: int = 0) -> None:
        super().__init__(config, head_layers=head_layers, head_size=head_size)
        self.add_last(classes)
        initialise(self, config)

    def classify(self, features_RH: Tensor, noise: Noise | None = None) -> Tensor:
        """Return logits_RC."""
        logits_RC: Tensor = self.last(self.own_layers(dropout(features_RH, self.dropout, noise), noise))
        return logits_RC


class SpanClassifier(Headed):
    """A linear layer on every token (section 4.2): how well an answer begins there, and how well it ends there."""

    LAST = "qa_outputs"
    DROPS_FEATURES = False

    def __init__(self, config: BertConfig, *, head_layers: int = 0, head_size: int = 0) -> None:
        super().__init__(config, head_layers=head_layers, head_size=head_size)
        self.add_last(2)
        initialise(self, config)

    def classify(self, features_RH: Tensor, noise: Noise | None = None) -> Tensor:
        """Return logits_R2: start, end."""
        logits_R2: Tensor = self.last(self.own_layers(features_RH, noise))
        return logits_R2


class PretrainingHeads(nn.Module):
    """The two heads of pretraining (section 3.1): masked words, tied to the word embeddings, and next sentence."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.predictions = MaskedWordHead(config)
        self.seq_relationship = Linear(config.hidden_size, 2)


class MaskedWordHead(nn.Module):
    """Transform, then compare with every word embedding."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_MH: Tensor, words_VH: Tensor) -> Tensor:
        """Return logits_MV for the rows given, which should be the masked positions alone."""
        return F.linear(self.transform(hidden_MH), words_VH, self.bias)

    def loss(self, hidden_MH: Tensor, words_VH: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return (the sum of the cross-entropies, how many targets were the first guess) without holding all logits."""
        return masked_word_loss(self.transform(hidden_MH), words_VH, self.bias, targets_M)


class Transform(nn.Module):
    """Dense, activation, layer norm, before the comparison with the vocabulary."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.LayerNorm = LayerNorm(config)

    def forward(self, hidden_MH: Tensor) -> Tensor:
        """Return the transformed rows, of the same shape."""
        transformed: Tensor = self.LayerNorm(self.activation(self.dense(hidden_MH)))
        return transformed


class Pretraining(nn.Module):
    """BERT with the heads of its pretraining: what ``transformers`` calls BertForPreTraining."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
        self.cls = PretrainingHeads(config)
        initialise(self, config)

    def features(self, batch: PackedBatch, masked: Rows, noise: Noise | None = None) -> tuple[Tensor, Tensor]:
        """Return (hidden_MH at the masked rows, hidden_BH of [CLS]); no [CLS] may be masked.

        The last layer computes these rows alone.
        """
        rows, masked_M, firsts_B = batch.sequences.firsts_and(masked)
        hidden_RH = self.encoder(self.embeddings(batch, noise), batch, rows, noise)
        return hidden_RH.index_select(0, masked_M), hidden_RH.index_select(0, firsts_B)

    def logits(self, batch: PackedBatch, masked: Rows) -> tuple[Tensor, Tensor]:
        """Return (logits_MV at the masked rows, logits_B2: is next, is not next)."""
        hidden_MH, cls_BH = self.features(batch, masked)
        words_MV = self.cls.predictions(hidden_MH, self.embeddings.word_embeddings.weight)
        return words_MV, self.cls.seq_relationship(self.pooler(cls_BH))

    def forward(
        self, batch: PackedBatch, masked: Rows, noise: Noise | None, targets_M: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (the sum of the masked words' cross-entropies, how many of them were the first guess, logits_B2)."""
        hidden_MH, cls_BH = self.features(batch, masked, noise)
        loss, right = self.cls.predictions.loss(hidden_MH, self.embeddings.word_embeddings.weight, targets_M)
        return loss, right, self.cls.seq_relationship(self.pooler(cls_BH))


def initialise(model: nn.Module, config: BertConfig) -> None:
    """Initialise as BERT was: weights from a normal distribution cut at two deviations, biases and padding 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            std = config.initializer_range
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Embeddings):  # after its children, which a single pass comes to later
            with torch.no_grad():
                module.word_embeddings.weight[config.pad_token_id] = 0
