"""WordPiece as BERT uses it (Devlin et al. 2019, section 3; Wu et al. 2016, section 4.1): load, encode, truncate, save.

The `tokenizers` library splits text into pieces. Everything that varies from call to call (special tokens, truncation,
pairs) is done here instead, because the library keeps such settings on the shared object, where two threads would
change them under each other. The ids are those of `transformers` 5, which the tests use as oracle.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bertwright.errors import BertwrightError, did_you_mean, tell

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
LONGEST_WORD = 100
"""Characters; a longer word becomes one [UNK], as in BERT's own code."""

# Where tokenizer_config.json names one of these classes, transformers takes tokenizer.json as it stands; for every
# other class it builds the normalizer anew from the settings in tokenizer_config.json.
_VERBATIM_CLASSES = {"PreTrainedTokenizerFast", "TokenizersBackend"}
# The normalizer's settings: the library's name, the name in tokenizer_config.json, the default of transformers.
_SETTINGS: tuple[tuple[str, str, bool | None], ...] = (
    ("lowercase", "do_lower_case", True),
    ("strip_accents", "strip_accents", None),
    ("handle_chinese_chars", "tokenize_chinese_chars", True),
)
_FIXED = {"truncation_side": "right", "padding_side": "right", "split_special_tokens": False}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text, or one pair of texts, as ids: ``[CLS] A [SEP]`` or ``[CLS] A [SEP] B [SEP]``.

    All lists are of one length, which is also ``len(encoded)``. ``token_type_ids`` is 0 up to the first ``[SEP]`` and 1
    for ``B [SEP]``. ``cut`` counts the tokens that truncation removed. ``offsets``, where asked for, holds for each
    token the half-open range of characters of the original text that it came from: of A in segment 0, of B in segment
    1, and ``(0, 0)`` for the special tokens added here.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    cut: int
    offsets: list[tuple[int, int]] | None

    def __len__(self) -> int:
        return len(self.input_ids)


class Tokenizer:
    """BERT's tokenizer: immutable, and safe to use from several threads and to send to other processes.

    `from_directory` and `from_vocab` make one. Its ``pad_id``, ``unk_id``, ``cls_id``, ``sep_id`` and ``mask_id``
    are the ids of the special tokens. What happens to unusual text, all of it as in `transformers`:

    - A special token written out in a text, such as ``"[SEP]"``, becomes that special token; another case or spacing
      (``"[sep]"``) does not. A text from strangers can thus hold a ``[SEP]`` or ``[MASK]`` of its own.
    - NUL, U+FFFD and control characters vanish; tab, line breaks and all other white space separate words.
    - A word of over 100 characters becomes one ``[UNK]``. A text with no tokens becomes ``[CLS] [SEP]``.
    - A lone surrogate, which UTF-8 cannot hold, raises `BertwrightError`.
    """

    def __init__(
        self, source: str, vocab: list[str], settings: Mapping[str, Any], added: Mapping[int, tokenizers.AddedToken]
    ) -> None:
        """Build it of parts that the class methods read from the file `source`.

        `settings` are BertNormalizer's; `added` maps ids to tokens that are found in a text before it is split.
        """
        ids = {entry: number for number, entry in enumerate(vocab)}
        ids_with_added = ids | {token.content: number for number, token in added.items()}
        missing = [token for token in SPECIAL_TOKENS.values() if token not in ids_with_added]
        if missing or "[UNK]" not in ids:
            raise BertwrightError(f"{source}: the vocabulary lacks {', '.join(missing or ['[UNK]'])}, which BERT needs")
        self.pad_id: Final = ids_with_added["[PAD]"]
        self.unk_id: Final = ids_with_added["[UNK]"]
        self.cls_id: Final = ids_with_added["[CLS]"]
        self.sep_id: Final = ids_with_added["[SEP]"]
        self.mask_id: Final = ids_with_added["[MASK]"]
        special = {ids_with_added[token]: tokenizers.AddedToken(token, special=True) for token in SPECIAL_TOKENS.values()}
        self._added = dict(sorted((special | dict(added)).items()))
        core = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))
        core.normalizer = normalizers.BertNormalizer(clean_text=True, **settings)
        core.add_tokens(list(self._added.values()))
        for number, token in self._added.items():
            if core.token_to_id(token.content) != number:
                here = f"has the id {number} where {core.token_to_id(token.content)} is its place"
                raise BertwrightError(f"{source}: added token '{token.content}' {here}; save the tokenizer anew")
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        core.decoder = decoders.WordPiece(prefix="##")
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", self.cls_id), ("[SEP]", self.sep_id)],
        )
        self._core = core
        self._vocab = vocab
        self._settings = dict(settings)
        self._entries = vocab + [token.content for token in self._added.values() if token.content not in ids]
        self._ids = {entry: number for number, entry in enumerate(self._entries)}

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read the tokenizer of a model directory: tokenizer.json if it is there, else vocab.txt.

        How text is normalised (lower case, accents, Chinese characters) is taken, in this order, from
        tokenizer_config.json, from tokenizer.json, and from the vocabulary (see `from_vocab`). tokenizer_config.json
        wins as it does in `transformers`, except under the class names PreTrainedTokenizerFast and TokenizersBackend,
        which mean tokenizer.json as it stands. Where the two contradict each other, or `transformers` would fill a gap
        differently, a `BertwrightWarning` says so. Truncation and padding in tokenizer.json are left aside.

        Raises:
            BertwrightError: A file is missing, broken or not BERT's (not WordPiece, another normalizer), lacks a
                special token or gives one another name, or names added tokens that tokenizer.json lacks.
        """
        directory = Path(path)
        tokenizer_file, vocab_file = directory / "tokenizer.json", directory / "vocab.txt"
        config_file = directory / "tokenizer_config.json"
        config = _read_object(config_file) if config_file.exists() else {}
        for name, only in _FIXED.items():
            if config.get(name, only) != only:
                tell(f"{config_file}: {name}={config[name]!r} has no effect here: it is always {only!r}")
        if tokenizer_file.exists():
            tokenizer = cls(str(tokenizer_file), *_from_tokenizer_file(tokenizer_file, config_file, config))
        elif vocab_file.exists():
            tokenizer = cls(str(vocab_file), *_from_vocab_file(vocab_file, config_file, config))
        elif directory.is_dir():
            raise BertwrightError(f"{directory}: holds neither tokenizer.json nor vocab.txt; is it a model directory?")
        else:
            raise BertwrightError(f"{directory}: no such directory; name the one with tokenizer.json or vocab.txt")
        _check_added_tokens(directory, config, tokenizer)
        return tokenizer

    @classmethod
    def from_vocab(
        cls,
        path_or_tokens: str | os.PathLike[str] | Iterable[str],
        *,
        lowercase: bool | None = None,
        strip_accents: bool | None = None,
        chinese_characters: bool = True,
    ) -> Tokenizer:
        """Make a tokenizer of a vocabulary: a vocab.txt, one entry a line, or the entries in the order of their ids.

        `lowercase` None decides from the vocabulary: text is lower-cased exactly if no entry has a capital letter,
        leaving aside entries in brackets such as ``[UNK]`` or ``<S>``. `strip_accents` None follows `lowercase`, as in
        BERT. `chinese_characters` sets every CJK ideograph apart as a word of its own.

        Raises:
            BertwrightError: No file, not UTF-8, empty, an entry twice (with its line), or a special token missing.
        """
        if isinstance(path_or_tokens, (str, os.PathLike)):
            file = Path(path_or_tokens)
            source, entries = str(file), _read_vocab(file)
        else:
            source, entries = "vocabulary", list(path_or_tokens)
            _check_entries(entries, source, "vocabulary entry ", 0)
        settings = {"strip_accents": strip_accents, "handle_chinese_chars": chinese_characters}
        settings["lowercase"] = _is_uncased(entries) if lowercase is None else lowercase
        return cls(source, entries, settings, {})

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included: the rows that an embedding needs."""
        return len(self._entries)

    def check_fits(self, embeddings: int, where: str) -> None:
        """Raise BertwrightError if it has ids that a model with so many word embeddings has none for."""
        if self.vocab_size > embeddings:
            raise BertwrightError(
                f"{where}: the vocabulary has {self.vocab_size:,} entries but the model only {embeddings:,} word "
                "embeddings; take the vocabulary that belongs to the model"
            )

    @property
    def lowercase(self) -> bool:
        """Whether text is lower-cased before it is split."""
        return bool(self._settings["lowercase"])

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all that decides the ids; the same under every version of the libraries."""
        added = [
            [number, token.content, token.single_word, token.lstrip, token.rstrip, token.normalized, token.special]
            for number, token in self._added.items()
        ]
        canonical = json.dumps([self._vocab, self._settings, added], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def token(self, id: int) -> str:
        """Return the entry with this id.

        Raises:
            BertwrightError: There is no such id.
        """
        if not 0 <= id < len(self._entries):
            raise BertwrightError(f"id {id} is not in the vocabulary, whose ids are 0 to {len(self._entries) - 1}")
        return self._entries[id]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the entries with these ids, special tokens included; raises as `token` does."""
        return [self.token(id) for id in ids]

    def id(self, token: str) -> int:
        """Return the id of an entry, such as ``"##less"`` or ``"[SEP]"``; raises `BertwrightError` if it is none."""
        if token not in self._ids:
            raise BertwrightError(f"'{token}' is not in the vocabulary{did_you_mean(token, self._ids)}")
        return self._ids[token]

    def encode(self, text: str, pair: str | None = None, *, max_length: int | None = None, offsets: bool = False) -> Encoded:
        """Encode one text or one pair; see `encode_batch`. An empty `pair` is still a pair."""
        return self.encode_batch([text], None if pair is None else [pair], max_length=max_length, offsets=offsets)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        offsets: bool = False,
    ) -> list[Encoded]:
        """Encode texts, or with `pairs` the pairs (texts[i], pairs[i]), on all cores.

        Args:
            texts: The texts; segment 0.
            pairs: As many texts for segment 1, or None.
            max_length: Most tokens in a result, special tokens included. Tokens are taken from the end of the longer
                text until both are as long, then from both (``longest_first`` in `transformers`); when an odd place
                is left the longer text has it, or B if both were as long. `Encoded.cut` counts them. None cuts nothing.
            offsets: Whether to record where in the text each token came from, which costs time.

        Raises:
            BertwrightError: `max_length` below 2 (3 for pairs), unequal numbers of texts and pairs, or a text that is
                no string or holds a lone surrogate.
        """
        added = 2 if pairs is None else 3
        if max_length is not None and max_length < added:
            what = "[CLS] and [SEP]" if pairs is None else "[CLS], [SEP] and [SEP] of a pair"
            raise BertwrightError(f"max_length={max_length} has no room for {what}; make it at least {added}")
        room = None if max_length is None else max_length - added
        first = self._split(texts, "text", offsets)
        if pairs is None:
            return [self._join(encoding, None, room, offsets) for encoding in first]
        second = self._split(pairs, "pair", offsets)
        if len(first) != len(second):
            raise BertwrightError(f"{len(first)} texts but {len(second)} pairs; each text needs one")
        return [self._join(a, b, room, offsets) for a, b in zip(first, second, strict=True)]

    def save(self, directory: str | os.PathLike[str], *, max_length: int = 512) -> None:
        """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and vocab.txt, as `transformers` does.

        `max_length` becomes ``model_max_length``: the most tokens the model has positions for. Added tokens are in
        tokenizer.json only.

        Raises:
            BertwrightError: `max_length` is below 3.
        """
        if max_length < 3:
            raise BertwrightError(f"max_length={max_length} has no room for a pair; make it at least 3")
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "BertTokenizer",
            "model_max_length": max_length,
            **{theirs: self._settings[ours] for ours, theirs, _ in _SETTINGS},
            **SPECIAL_TOKENS,
        }
        (folder / "tokenizer.json").write_bytes(self._core.to_str(pretty=True).encode("utf-8"))
        for name, content in (("tokenizer_config", config), ("special_tokens_map", SPECIAL_TOKENS)):
            (folder / f"{name}.json").write_bytes((json.dumps(content, indent=2) + "\n").encode("utf-8"))
        (folder / "vocab.txt").write_bytes("".join(f"{entry}\n" for entry in self._vocab).encode("utf-8"))

    def _split(self, texts: Sequence[str], name: str, offsets: bool) -> list[tokenizers.Encoding]:
        if isinstance(texts, str):
            raise BertwrightError(f"one string where a list of {name}s belongs: {texts[:40]!r}; put it in a list")
        inputs = list(texts)
        split = self._core.encode_batch if offsets else self._core.encode_batch_fast
        try:
            return split(inputs, add_special_tokens=False)
        except TypeError:
            for number, text in enumerate(inputs, 1):
                _check_text(text, f"{name} {number}")
            raise

    def _join(
        self, first: tokenizers.Encoding, second: tokenizers.Encoding | None, room: int | None, offsets: bool
    ) -> Encoded:
        first_ids, second_ids = first.ids, [] if second is None else second.ids
        total = len(first_ids) + len(second_ids)
        cut = 0 if room is None else max(0, total - room)
        keep_first, keep_second = len(first_ids), len(second_ids)
        if cut:
            keep_first, keep_second = _longest_first(keep_first, keep_second, total - cut)
        input_ids = [self.cls_id, *first_ids[:keep_first], self.sep_id]
        token_type_ids = [0] * len(input_ids)
        places = [(0, 0), *first.offsets[:keep_first], (0, 0)] if offsets else None
        if second is not None:
            input_ids += [*second_ids[:keep_second], self.sep_id]
            token_type_ids += [1] * (keep_second + 1)
            if places is not None:
                places += [*second.offsets[:keep_second], (0, 0)]
        return Encoded(input_ids, token_type_ids, cut, places)


def padded(encoded: Sequence[Encoded], tokenizer: Tokenizer) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Return input_ids, token_type_ids and attention_mask (1 for a token, 0 for padding), each B rows of the length S.

    For display, and to compare with software that pads: nothing in bertwright needs padding. S is the longest length.
    """
    width = max((len(one) for one in encoded), default=0)
    return (
        [one.input_ids + [tokenizer.pad_id] * (width - len(one)) for one in encoded],
        [one.token_type_ids + [0] * (width - len(one)) for one in encoded],
        [[1] * len(one) + [0] * (width - len(one)) for one in encoded],
    )


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of each text stay when both together must fill `room`, which is less than their sum.

    Done here also so that it never changes: tokenizers 0.23.1 and 0.23.2 differ from 0.22 and 0.23.3 on odd places.
    """
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def _check_text(text: object, name: str) -> None:
    if not isinstance(text, str):
        raise BertwrightError(f"{name} is {text!r}, of type {type(text).__name__}, not a string; leave it out")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        what = f"the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, which is no text"
        cure = "read its file as UTF-8, or replace it with text.encode('utf-8', 'replace').decode()"
        raise BertwrightError(f"{name} has {what}; {cure}") from error


def _is_uncased(entries: Iterable[str]) -> bool:
    return all(entry == entry.lower() or entry[0] + entry[-1] in {"[]", "<>"} for entry in entries)


# The vocabulary, the settings of the normalizer, and the added tokens by their ids.
_Parts = tuple[list[str], dict[str, Any], dict[int, tokenizers.AddedToken]]


def _from_tokenizer_file(file: Path, config_file: Path, config: Mapping[str, Any]) -> _Parts:
    given = _read_object(file)
    model: Any = given.get("model")
    normalizer = given.get("normalizer")
    # Files of old versions of the library leave the type of the model out.
    kind = model.get("type", "BPE" if "merges" in model else "WordPiece") if isinstance(model, dict) else "missing"
    if kind != "WordPiece":
        raise BertwrightError(f"{file}: its model is {kind}, where BERT's is WordPiece; it belongs to another model")
    if not isinstance(normalizer, dict):
        raise BertwrightError(f"{file}: its normalizer is {normalizer!r}, where BERT's is a BertNormalizer")
    for part, name, only in (
        (model, "unk_token", "[UNK]"),
        (model, "continuing_subword_prefix", "##"),
        (model, "max_input_chars_per_word", LONGEST_WORD),
        (normalizer, "type", "BertNormalizer"),
        (normalizer, "clean_text", True),
        (given, "pre_tokenizer", {"type": "BertPreTokenizer"}),
    ):
        if part.get(name, only) != only:
            raise BertwrightError(f"{file}: {name} is {part[name]!r}, where BERT's is {only!r}; it is another model's")
    settings = {}
    for ours, theirs, default in _SETTINGS:
        stated = settings[ours] = _flag(file, normalizer, ours, default)
        if config.get("tokenizer_class") in _VERBATIM_CLASSES:
            continue
        settings[ours] = _flag(config_file, config, theirs, stated)
        if settings[ours] != stated:
            tell(f"{config_file}: {theirs}={settings[ours]} wins over {ours}={stated} in {file.name}")
        elif theirs not in config and stated != default:
            gap = f"{config_file}: says nothing of {theirs}, so {ours}={stated} in {file.name} holds"
            tell(f"{gap}, where transformers may take {default}; write it there")
    try:
        added = {
            int(token["id"]): tokenizers.AddedToken(**{name: token[name] for name in token if name != "id"})
            for token in given.get("added_tokens") or []
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BertwrightError(f"{file}: added_tokens cannot be read: {error}; save the tokenizer anew") from error
    return _entries_by_id(file, model.get("vocab")), settings, added


def _from_vocab_file(file: Path, config_file: Path, config: Mapping[str, Any]) -> _Parts:
    entries = _read_vocab(file)
    settings = {ours: _flag(config_file, config, theirs, default) for ours, theirs, default in _SETTINGS}
    if "do_lower_case" not in config and not _is_uncased(entries):
        settings["lowercase"] = False
        gap = f"{file}: has entries with capital letters, so text keeps its case, where transformers would lower it"
        tell(f"{gap}; write do_lower_case in {config_file.name} to settle it")
    return entries, settings, {}


def _flag(file: Path, part: Mapping[str, Any], name: str, default: bool | None) -> bool | None:
    value = part.get(name, default)
    if isinstance(value, bool) or (value is None and name == "strip_accents"):
        return value
    raise BertwrightError(f"{file}: {name} is {value!r}; make it true or false")


def _check_added_tokens(directory: Path, config: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Refuse what would make `transformers` use other special or added tokens than `tokenizer` has."""
    known = {token.content for token in tokenizer._added.values()}
    files = {directory / "tokenizer_config.json": config}
    for name in ("special_tokens_map.json", "added_tokens.json"):
        if (directory / name).exists():
            files[directory / name] = _read_object(directory / name)
    for file, given in files.items():
        for name, token in SPECIAL_TOKENS.items():
            if (other := _content(given.get(name))) not in (None, token):
                raise BertwrightError(f"{file}: {name} is {other!r}, where BERT's is '{token}'; rename it")
        groups = [given.get(f"{kind}_special_tokens") or [] for kind in ("additional", "extra")]
        groups += [given.get("added_tokens_decoder") or {}, list(given) if file.name == "added_tokens.json" else []]
        tokens = [one for group in groups for one in (group.values() if isinstance(group, dict) else group)]
        if unknown := {str(_content(token)) for token in tokens} - known:
            what = f"names the added token '{min(unknown)}', which no tokenizer.json beside it holds"
            raise BertwrightError(f"{file}: {what}; open the directory with transformers and save_pretrained it")


def _content(token: object) -> object:
    return token.get("content") if isinstance(token, dict) else token


def _entries_by_id(file: Path, vocab: object) -> list[str]:
    if not isinstance(vocab, dict) or not all(type(number) is int for number in vocab.values()):
        raise BertwrightError(f"{file}: the vocabulary of its model is no object of entries and ids")
    entries = sorted(vocab, key=vocab.__getitem__)
    _check_entries(entries, str(file), f"{file}: entry ", 0)
    for number, entry in enumerate(entries):
        if vocab[entry] != number:
            raise BertwrightError(f"{file}: the id of '{entry}' is {vocab[entry]}, but {number} comes next, from 0 on")
    return entries


def _read_vocab(file: Path) -> list[str]:
    data = _read_bytes(file)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BertwrightError(f"{file}:{line}: not UTF-8; save the vocabulary as UTF-8") from error
    # str.splitlines would also split at U+2028, which is an entry of bert-base-chinese. Blanks at the end of a line are
    # no part of the entry, as in transformers.
    entries = [line.rstrip(" \t\r") for line in text.removesuffix("\n").split("\n")] if text.strip() else []
    _check_entries(entries, str(file), f"{file}:", 1)
    if "" in entries:
        number = entries.index("")
        tell(f"{file}:{number + 1}: a blank line, counted as entry {number}, which no text can match")
    return entries


def _check_entries(entries: Sequence[str], source: str, place: str, start: int) -> None:
    """Raise for no entries, equal ones or impossible ones; `place` and a count from `start` name them."""
    if not entries:
        raise BertwrightError(f"{source}: an empty vocabulary; it needs one entry for each id")
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries, start):
        _check_text(entry, f"{place}{number}")
        if seen.setdefault(entry, number) != number:
            raise BertwrightError(f"{place}{number}: '{entry}' stands at {seen[entry]} already; delete one")
        if "\n" in entry or "\r" in entry:
            raise BertwrightError(f"{place}{number}: {entry!r} has a line break, which vocab.txt cannot hold")


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BertwrightError(f"{file}: cannot be read: {error.strerror}") from error


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_bytes(file))
    except json.JSONDecodeError as error:
        raise BertwrightError(f"{file}:{error.lineno}: broken JSON: {error.msg}; fetch or save it anew") from error
    except UnicodeDecodeError as error:
        raise BertwrightError(f"{file}: not UTF-8; fetch or save it anew") from error
    if not isinstance(content, dict):
        raise BertwrightError(f"{file}: a JSON {type(content).__name__} where an object belongs")
    return content
