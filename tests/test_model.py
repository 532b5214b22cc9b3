"""BERT against ``transformers`` on the same weights: hidden states, logits, losses and every gradient."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.activations import ACT2FN

from bertwright import checkpoint
from bertwright.checkpoint import canonical, export_tensors, load_into, write_weights
from bertwright.data.packing import PackedBatch, Rows, TokenTable
from bertwright.errors import BertwrightError
from bertwright.model import ACTIVATIONS, PRESETS, Bert, BertConfig, Pretraining, SequenceClassifier, initialise
from bertwright.noise import Noise
from bertwright.tokenizer import Tokenizer

TINY = BertConfig(
    vocab_size=80, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40,
    max_position_embeddings=160,
)  # fmt: skip

# One sequence alone, one token alone, equal lengths, very different lengths, and lengths above every threshold.
BATCHES: list[list[int]] = [[7], [1], [5, 5, 5], [9, 2, 60, 31, 1, 17, 3, 9], [2, 150, 131], [4, 6, 5, 4, 7, 6]]


def random_table(lengths: Sequence[int], vocab_size: int = 80, *, pairs: bool = True, seed: int = 0) -> TokenTable:
    """Sequences of random ids above 0, the second part of each in segment 1 if ``pairs``."""
    generator = np.random.default_rng(seed)
    ids = [generator.integers(1, vocab_size, length).tolist() for length in lengths]
    cuts = [generator.integers(1, length + 1) if pairs else length for length in lengths]
    return TokenTable(ids, [[int(i >= cut) for i in range(n)] for n, cut in zip(lengths, cuts, strict=True)])


def pack(table: TokenTable) -> PackedBatch:
    return table.pack(np.arange(len(table)))


def padded(table: TokenTable) -> dict[str, Tensor]:
    """The sequences as ``transformers`` takes them, in the table's order."""
    longest = int(table.lengths.max())
    rows = [slice(int(start), int(start + length)) for start, length in zip(table.starts, table.lengths, strict=False)]
    inputs = {name: torch.zeros(len(rows), longest, dtype=torch.long) for name in ("input_ids", "token_type_ids")}
    mask_BS = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        length = row.stop - row.start
        inputs["input_ids"][number, :length] = torch.from_numpy(table.input_ids[row].astype(np.int64))
        inputs["token_type_ids"][number, :length] = torch.from_numpy(table.token_type_ids[row].astype(np.int64))
        mask_BS[number, :length] = 1
    return inputs | {"attention_mask": mask_BS}


def shaken(model: nn.Module) -> None:
    """Move every weight, so that no bias is 0 and no norm is 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.2 if parameter.ndim == 1 else 0.05
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale if "bias" not in name else 0.1)


def oracle_of(model: nn.Module, oracle_class: Any, **extra: Any) -> Any:
    """The same weights in a model of ``transformers``, dropout off."""
    config = transformers.BertConfig(**model.config.to_dict(), **extra)  # type: ignore[union-attr,operator]
    oracle = oracle_class(config).eval()
    missing, unexpected = oracle.load_state_dict(
        export_tensors(model, prefix="" if oracle_class is transformers.BertModel else "bert."), strict=False
    )
    assert not unexpected
    assert set(missing) <= {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}  # tied, if anything
    return oracle


def assert_close(got: Tensor, wanted: Tensor, what: str = "") -> None:
    """Equal to 1e-5, or to 1e-5 of the largest value where values are large."""
    assert got.shape == wanted.shape, what
    difference = float((got - wanted).detach().abs().max()) if got.numel() else 0.0
    assert difference <= 1e-5 * max(1.0, float(wanted.detach().abs().max())), f"{what}: {difference}"


def assert_same_gradients(model: nn.Module, oracle: Any) -> None:
    """Compare the gradient of every parameter, absolutely and in relation to its own largest value."""
    wanted = canonical({name: p.grad for name, p in oracle.named_parameters() if p.grad is not None}, where="oracle")
    got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert got.keys() == wanted.keys()
    for name, gradient in got.items():
        assert_close(gradient, wanted[name], name)
        largest = float(wanted[name].abs().max())
        assert float((gradient - wanted[name]).abs().max()) <= 1e-3 * largest + 1e-7, name
    assert max(float(gradient.abs().max()) for gradient in wanted.values()) > 1e-3  # there is something to compare


def assert_same_classifier(model: SequenceClassifier, oracle: Any, table: TokenTable) -> None:
    """Compare logits, loss and gradients of a classifier, sequences taken back to the caller's order."""
    batch, classes = pack(table), model.last.out_features
    targets_B = torch.arange(len(table)) % classes
    logits_BC = model(batch)
    loss = F.cross_entropy(logits_BC, targets_B[torch.from_numpy(batch.order)])
    output = oracle(**padded(table), labels=targets_B)
    assert_close(logits_BC, output.logits[torch.from_numpy(batch.order)], "logits")
    assert_close(loss, output.loss, "loss")
    torch.autograd.backward([loss, output.loss])
    assert_same_gradients(model, oracle)
    with torch.no_grad():
        assert_close(model(batch), output.logits[torch.from_numpy(batch.order)], "logits without gradients")


# --- the configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("tiny", 4_385_920),
        ("mini", 11_170_560),
        ("small", 28_763_648),
        ("medium", 41_373_184),
        ("base", 109_482_240),
        ("large", 335_141_888),
    ],
)
def test_presets_have_the_published_sizes(name: str, parameters: int) -> None:
    config = BertConfig.preset(name)
    with torch.device("meta"):
        ours, oracle = Bert(config), transformers.BertModel(transformers.BertConfig(**config.to_dict()))
    assert sum(p.numel() for p in ours.parameters()) == parameters
    assert sum(p.numel() for p in oracle.parameters()) == parameters


def test_a_preset_for_another_vocabulary() -> None:
    assert BertConfig.preset("tiny", 1000) == dataclasses.replace(BertConfig.preset("tiny"), vocab_size=1000)
    with pytest.raises(BertwrightError, match=r"no preset 'bose'; did you mean 'base'\? \(known: tiny, mini"):
        BertConfig.preset("bose")
    assert list(PRESETS) == ["tiny", "mini", "small", "medium", "base", "large"]


def test_the_defaults_are_those_of_transformers() -> None:
    theirs = transformers.BertConfig().to_dict()
    assert {name: theirs[name] for name in dataclasses.asdict(BertConfig())} == dataclasses.asdict(BertConfig())


@pytest.mark.parametrize("config", [BertConfig(), TINY, dataclasses.replace(TINY, classifier_dropout=0.3)], ids=str)
def test_a_config_survives_transformers(config: BertConfig, tmp_path: Path) -> None:
    transformers.BertConfig(**config.to_dict()).save_pretrained(tmp_path)
    written = transformers.AutoConfig.from_pretrained(tmp_path).to_dict()
    assert BertConfig.from_dict(written, "there") == config


def test_a_config_of_the_original_release_has_no_model_type() -> None:
    values = {k: v for k, v in TINY.to_dict().items() if k not in ("model_type", "position_embedding_type")}
    assert BertConfig.from_dict(values | {"pad_token_id": None, "directionality": "bidi"}, "there") == TINY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'; only 'bert' models can be loaded"),
        ({"model_type": None}, "model_type is None; only 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'; only 'absolute'"),
        ({"is_decoder": True}, "is_decoder is set; only encoders can be loaded"),
        ({"add_cross_attention": True}, "add_cross_attention is set"),
        *[
            ({name: value}, f"{name} must be a whole number of at least 1, not {value!r}")
            for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                         "max_position_embeddings", "type_vocab_size")
            for value in (0, -3, 1.5, "12", True)
        ],
        ({"num_attention_heads": 5}, "hidden_size 24 is not divisible by num_attention_heads 5"),
        ({"hidden_act": "gelu_nwe"}, r"hidden_act 'gelu_nwe' is not known; did you mean 'gelu_new'\? \(known: gelu, "),
        ({"hidden_act": ["gelu"]}, r"hidden_act \['gelu'\] is not known"),
        ({"hidden_act": 3}, "hidden_act 3 is not known"),
        *[
            ({name: value}, rf"{name} must lie in \[0, 1\), not {value!r}")
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
            for value in (1, 1.0, -0.1, float("nan"), "0.1")
        ],
        *[
            ({name: value}, f"{name} must be a number above 0, not {value!r}")
            for name in ("initializer_range", "layer_norm_eps")
            for value in (0, -1e-12, float("nan"), float("inf"), "1e-12")
        ],
        *[({"pad_token_id": value}, f"pad_token_id must be one of the 80 token ids, not {value!r}") for value in (-1, 80)],
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_would_be_computed_wrongly_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError, match=f"^my/config.json: {message}"):
        BertConfig.from_dict(TINY.to_dict() | change, "my/config.json")


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_a_config_without_a_size_is_refused(name: str) -> None:
    for values in (TINY.to_dict() | {name: None}, {k: v for k, v in TINY.to_dict().items() if k != name}):
        with pytest.raises(BertwrightError, match=f"^my/config.json: has no '{name}'; it is not the config.json of a BERT"):
            BertConfig.from_dict(values, "my/config.json")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name: str) -> None:
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -0.0, 1e-30, -60.0, 60.0])])
    torch.testing.assert_close(ACTIVATIONS[name](x), ACT2FN[name](x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "model_class", [Bert, Pretraining, lambda config: SequenceClassifier(config, 3, head_layers=2, head_size=9)]
)
def test_initialisation(model_class: Callable[[BertConfig], nn.Module]) -> None:
    config = dataclasses.replace(TINY, initializer_range=0.07, pad_token_id=5)
    torch.manual_seed(0)
    model = model_class(config)
    drawn: list[Tensor] = []
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.LayerNorm) and name == "weight":
                assert torch.all(parameter == 1), path
            elif name == "bias":
                assert torch.all(parameter == 0), path
            else:
                rows = torch.arange(len(parameter)) != (5 if "word_embeddings" in path else -1)
                assert torch.all(parameter[~rows] == 0)
                drawn.append(parameter.detach()[rows].flatten())
    values = torch.cat(drawn).double().sort().values / 0.07
    assert float(values.abs().max()) <= 2 + 1e-6
    # Kolmogorov's distance to the normal distribution that is drawn again beyond two deviations.
    below_two = torch.special.ndtr(torch.tensor(-2.0))
    wanted = (torch.special.ndtr(values) - below_two) / (1 - 2 * below_two)
    assert float((wanted - torch.linspace(0, 1, len(values))).abs().max()) < 1.95 / len(values) ** 0.5
    assert len(values) > 10_000
    torch.manual_seed(0)
    again = model_class(config)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    initialise(again, config)
    assert not torch.equal(next(model.parameters()), next(again.parameters()))


# --- the encoder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("lengths", BATCHES, ids=str)
def test_hidden_states_and_their_gradients(lengths: list[int], pairs: bool) -> None:
    model = Bert(TINY)
    shaken(model)
    oracle = oracle_of(model, transformers.BertModel)
    table = random_table(lengths, pairs=pairs)
    batch, inputs = pack(table), padded(table)
    output = oracle(**inputs)
    # Packed sequences beside padded ones, both in the packed order.
    order = torch.from_numpy(batch.order)
    wanted_TH = output.last_hidden_state[order][inputs["attention_mask"][order].bool()]
    hidden_TH = model(batch)
    assert_close(hidden_TH, wanted_TH)
    assert_close(model.pooler(hidden_TH[batch.sequences.firsts().index_R]), output.pooler_output[order])
    slope_TH = torch.randn(wanted_TH.shape, generator=torch.Generator().manual_seed(2))
    torch.autograd.backward([hidden_TH, wanted_TH], [slope_TH, slope_TH])
    assert_same_gradients(model, oracle)


VARIANTS: dict[str, dict[str, Any]] = {
    **{f"hidden_act {name}": {"hidden_act": name} for name in ("relu", "gelu_new", "silu", "tanh", "quick_gelu")},
    "a large epsilon": {"layer_norm_eps": 0.1},
    "one segment": {"type_vocab_size": 1},
    "five segments": {"type_vocab_size": 5},
    "one layer": {"num_hidden_layers": 1},
    "one head": {"num_attention_heads": 1},
    "heads of one": {"num_attention_heads": 24},
    "narrow in the middle": {"intermediate_size": 3},
    "another padding id": {"pad_token_id": 7},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str) -> None:
    config = dataclasses.replace(TINY, **VARIANTS[variant])
    model = SequenceClassifier(config, 3)
    shaken(model)
    table = random_table([9, 2, 31, 17], pairs=config.type_vocab_size > 1)
    table.input_ids[table.input_ids == config.pad_token_id] = 20  # a padding id in a text has no gradient there
    if config.type_vocab_size > 2:
        table.token_type_ids[:] = np.arange(table.tokens) % config.type_vocab_size
    assert_same_classifier(model, oracle_of(model, transformers.BertForSequenceClassification, num_labels=3), table)


@pytest.mark.parametrize(
    ("lengths", "picked"),
    [
        ([4, 6, 9], [[0, 3], [], [1, 2, 8]]),
        ([4, 6, 9], [[], [], [8]]),
        ([5, 5, 5], [[0, 1], [0, 1], [2, 4]]),
        ([1, 2, 140, 150], [[0], [], [3], [0, 7, 149]]),
        ([5, 9], [[], []]),
        ([5, 9], [range(5), range(9)]),
    ],
    ids=str,
)
def test_rows_of_the_last_layer_are_those_of_the_whole_layer(lengths: list[int], picked: list[Sequence[int]]) -> None:
    model = Bert(TINY)
    shaken(model)
    batch = pack(random_table(lengths))
    starts = batch.sequences.offsets_B1.tolist()
    index_R = torch.tensor([starts[b] + place for b, places in enumerate(picked) for place in places], dtype=torch.long)
    rows = Rows(index_R, tuple(len(places) for places in picked))
    slope_RH = torch.randn(len(index_R), TINY.hidden_size)
    parameters = [*model.embeddings.parameters(), *model.encoder.parameters()]
    whole_RH, pruned_RH = model(batch)[index_R], model(batch, rows)
    torch.testing.assert_close(pruned_RH, whole_RH, rtol=0, atol=2e-6)
    wanted = torch.autograd.grad(whole_RH, parameters, slope_RH)
    got = torch.autograd.grad(pruned_RH, parameters, slope_RH)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(batch, rows), whole_RH, rtol=0, atol=2e-6)


# --- the heads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("lengths", BATCHES, ids=str)
def test_classifier(lengths: list[int], classes: int) -> None:
    model = SequenceClassifier(TINY, classes)
    shaken(model)
    oracle = oracle_of(model, transformers.BertForSequenceClassification, num_labels=classes)
    assert_same_classifier(model, oracle, random_table(lengths))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(0, 99))
def test_a_sequence_has_the_same_logits_in_any_company(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    model = SequenceClassifier(TINY, 3)
    shaken(model)
    table = random_table(lengths, seed=seed)
    batch = pack(table)
    with torch.no_grad():
        together_BC = model(batch)
        for b, number in enumerate(batch.order):
            torch.testing.assert_close(together_BC[b : b + 1], model(table.pack(np.array([number]))), rtol=0, atol=5e-6)


def test_pretraining() -> None:
    model = Pretraining(TINY)
    shaken(model)
    oracle = oracle_of(model, transformers.BertForPreTraining)
    table = random_table([9, 2, 60, 31, 1, 17])
    batch, inputs = pack(table), padded(table)
    order = torch.from_numpy(batch.order)
    chosen_BS = (torch.rand(inputs["input_ids"].shape, generator=torch.Generator().manual_seed(3)) < 0.3) & (
        inputs["attention_mask"] == 1
    )
    chosen_BS[:, 0] = False  # [CLS] is never masked
    masked_T = chosen_BS[order][inputs["attention_mask"][order].bool()]
    counts = tuple(int(part.sum()) for part in torch.split(masked_T, list(batch.sequences.lengths)))
    assert 0 in counts
    assert max(counts) > 5
    rows, targets_M = Rows(masked_T.nonzero().flatten(), counts), batch.input_ids_T[masked_T]
    words_MV, next_B2 = model.logits(batch, rows)
    is_next_B = torch.tensor([0, 1, 1, 0, 1, 0])
    output = oracle(**inputs, labels=inputs["input_ids"].masked_fill(~chosen_BS, -100), next_sentence_label=is_next_B)
    words_loss, right, again_B2 = model(batch, rows, None, targets_M)
    assert int(right) == int((words_MV.argmax(1) == targets_M).sum())
    assert torch.equal(again_B2, next_B2)
    loss = words_loss / len(targets_M) + F.cross_entropy(again_B2, is_next_B[order])
    assert_close(words_MV, output.prediction_logits[order][chosen_BS[order]], "words")
    assert_close(next_B2, output.seq_relationship_logits[order], "next")
    assert_close(loss, output.loss, "loss")
    torch.autograd.backward([loss, output.loss])
    assert_same_gradients(model, oracle)


def test_recomputed_layers_have_the_same_gradients_and_masks() -> None:
    table = random_table([9, 2, 60, 31])
    batch = pack(table)
    rows = Rows(torch.tensor([1, 5, 20, 70]), (0, 2, 1, 1))
    model = Pretraining(dataclasses.replace(TINY, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2))
    shaken(model)
    gradients = []
    for recompute in (False, True):
        model.encoder.recompute = recompute
        loss, _, logits_B2 = model(batch, rows, Noise(3, 5), batch.input_ids_T[rows.index_R])
        model.zero_grad()
        torch.autograd.backward(loss + logits_B2.pow(2).sum())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_layers_of_your_own_between_pooler_and_classifier() -> None:
    model = SequenceClassifier(TINY, 3, head_layers=2, head_size=11)
    shaken(model)
    weights = model.state_dict()
    assert [tuple(weights[f"head.{n}.weight"].shape) for n in range(3)] == [(11, 24), (11, 11), (3, 11)]
    batch = pack(random_table([3, 8]))
    hidden = model.pooler(model.features(batch))
    for n in range(2):
        hidden = F.gelu(F.linear(hidden, weights[f"head.{n}.weight"], weights[f"head.{n}.bias"]))
    torch.testing.assert_close(model(batch), model.last(hidden))


# --- real and published shapes ----------------------------------------------------------------------------------------

TEXTS = [
    "The book was written by John.",
    "What did Mary wonder whether Bill ate?",
    "No.",
    "They drank the pub dry, and then they told everybody who would listen about it for the rest of the evening.",
]
SECONDS = ["John wrote it.", "", "Yes, on the contrary, it is.", "They drank."]


@pytest.mark.parametrize("pairs", [None, SECONDS], ids=["texts", "pairs"])
def test_minilm(minilm_dir: Path, pairs: list[str] | None) -> None:
    held = checkpoint.read(minilm_dir)
    torch.manual_seed(0)
    model = SequenceClassifier(BertConfig.from_dict(held.config, str(minilm_dir)), 2)
    report = load_into(model, held.tensors, where=str(minilm_dir))
    assert report.new == ("classifier.weight", "classifier.bias")
    oracle = transformers.BertForSequenceClassification.from_pretrained(minilm_dir, num_labels=2).eval()
    oracle.classifier.load_state_dict(model.last.state_dict())
    encoded = Tokenizer.from_directory(minilm_dir).encode_batch(TEXTS, pairs, max_length=64)
    table = TokenTable([e.input_ids for e in encoded], [e.token_type_ids for e in encoded])
    assert_same_classifier(model, oracle, table)


@pytest.mark.parametrize("name", ["base", "large"])
def test_published_sizes(name: str) -> None:
    # All layers at their full width, but of three layers' weights in turn: as deep, and far quicker to make. Each
    # gradient of a layer is then the sum of several layers'.
    config = BertConfig.preset(name, vocab_size=300)
    torch.manual_seed(0)
    model = SequenceClassifier(dataclasses.replace(config, num_hidden_layers=3), 3)
    oracle = oracle_of(model, transformers.BertForSequenceClassification, num_labels=3)
    for encoder in (model.encoder, oracle.bert.encoder):
        encoder.layer = nn.ModuleList([*encoder.layer] * (config.num_hidden_layers // 3))
    assert len(model.encoder.layer) == config.num_hidden_layers
    assert_same_classifier(model, oracle, random_table([3, 14, 6], vocab_size=300))


@pytest.mark.parametrize(("name", "layers"), [("base", 12), ("large", 2)])
def test_directories_of_published_widths_open_both_ways(tmp_path: Path, name: str, layers: int) -> None:
    config = dataclasses.replace(BertConfig.preset(name, vocab_size=300), num_hidden_layers=layers)
    torch.manual_seed(0)
    ours = SequenceClassifier(config, 2)
    (tmp_path / "ours").mkdir()
    write_weights(tmp_path / "ours", export_tensors(ours, prefix="bert."))
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config.to_dict()))
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert_same_classifier(ours, theirs, random_table([3, 14, 6], vocab_size=300))
    theirs.save_pretrained(tmp_path / "theirs")
    held = checkpoint.read(tmp_path / "theirs")
    back = SequenceClassifier(BertConfig.from_dict(held.config, ""), 2)
    report = load_into(back, held.tensors, where="theirs")
    assert not report.new
    assert not report.left
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in ours.state_dict().items())


# --- training ---------------------------------------------------------------------------------------------------------

NOISY = dataclasses.replace(TINY, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)


def test_dropout_is_a_function_of_seed_and_step() -> None:
    model, batch = SequenceClassifier(NOISY, 3), pack(random_table([9, 2, 31]))
    shaken(model)
    first_BC = model(batch, Noise(1, 5))
    assert torch.equal(first_BC, model(batch, Noise(1, 5)))
    for other in (Noise(1, 6), Noise(2, 5), None):
        assert not torch.allclose(first_BC, model(batch, other))


def test_dropout_is_where_bert_has_it() -> None:
    """Two masks a layer over hidden states, one over attention weights, one over the embeddings, one over the pooled."""

    class Counting(Noise):
        def mask(self, shape: tuple[int, ...], probability: float) -> Tensor:
            drawn.append((probability, int(np.prod(shape))))
            return super().mask(shape, probability)

    drawn: list[tuple[float, int]] = []
    config = dataclasses.replace(NOISY, classifier_dropout=0.4)
    SequenceClassifier(config, 3)(pack(random_table([10, 10])), Counting(0, 0))
    hidden, weights = (0.3, 20 * 24), (0.2, 2 * 3 * 10 * 10)
    rows, row_weights = (0.3, 2 * 24), (0.2, 2 * 3 * 1 * 10)  # the last layer is computed for [CLS] alone
    assert drawn == [hidden, *[weights, hidden, hidden] * 2, row_weights, rows, rows, (0.4, 2 * 24)]
    for classifier_dropout, wanted in ((None, 0.3), (0.0, None)):
        drawn.clear()
        config = dataclasses.replace(NOISY, classifier_dropout=classifier_dropout, hidden_dropout_prob=0.3)
        SequenceClassifier(config, 3).classify(torch.ones(2, 24), Counting(0, 0))
        assert [rate for rate, _ in drawn] == ([] if wanted is None else [wanted])


@pytest.mark.parametrize("parts", range(5))
def test_frozen_parts_have_no_gradient_and_no_dropout(parts: int) -> None:
    model, whole = SequenceClassifier(NOISY, 3), SequenceClassifier(NOISY, 3)
    shaken(model)
    whole.load_state_dict(model.state_dict())
    model.freeze(parts)
    batch = pack(random_table([9, 2, 31]))
    for each in (model, whole):
        torch.autograd.backward(F.cross_entropy(each(batch), torch.tensor([0, 1, 2])))
    frozen = ("embeddings.", *(f"encoder.layer.{number}." for number in range(parts - 1))) if parts else ()
    for (name, parameter), reference in zip(model.named_parameters(), whole.parameters(), strict=True):
        if name.startswith(frozen):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        quiet = torch.equal(model.features(batch, Noise(0, 0)), model.features(batch))
    assert quiet == (parts == 1 + TINY.num_hidden_layers)
    model.freeze(0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_bfloat16_is_near_float32() -> None:
    model, batch = SequenceClassifier(NOISY, 3), pack(random_table([9, 2, 31, 140]))
    shaken(model)
    gradients: list[Tensor] = []
    logits: list[Tensor] = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits_BC = model(batch, Noise(0, 0))
        assert logits_BC.dtype is (torch.bfloat16 if enabled else torch.float32)
        logits.append(logits_BC.detach().float())
        loss = F.cross_entropy(logits_BC.float(), torch.tensor([0, 1, 2, 0]))
        parts = torch.autograd.grad(loss, list(model.parameters()))
        assert all(part.dtype is torch.float32 for part in parts)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    assert float((logits[0] - logits[1]).abs().max()) < 0.05
    assert float(F.cosine_similarity(gradients[0], gradients[1], dim=0)) > 0.999
