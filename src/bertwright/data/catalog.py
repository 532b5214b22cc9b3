"""Data sets that are known by name: where they lie, how their files are written, how their communities measure them.

This is a table and nothing else; :mod:`bertwright.data.known` makes options of it. What an entry calls an option is one of
``finetune``. Numbers of rows are those of the training and test sets as they are used here.

GLUE keeps the labels of its test sets: there the development set is the test set, and nothing is chosen by it; what picks
the best epoch is set aside from the training rows. Labels have the names that the hub's features give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Parts:
    """Which files of a directory, or which splits of a hub data set, serve as what.

    A file may be a pattern such as ``train-v1.1*.json``, which one file must match. Without ``validation``, a part of the
    training rows is set aside; without ``test``, the model is judged on that part alone.
    """

    train: str
    test: str | None = None
    validation: str | None = None
    also_test: Mapping[str, str] = field(default_factory=dict)

    def all(self) -> list[str]:
        """All of them."""
        return [part for part in (self.train, self.validation, self.test, *self.also_test.values()) if part is not None]

    def each(self, place: Callable[[str], str]) -> Parts:
        """The same with each part's place in its stead."""
        test, validation = (None if part is None else place(part) for part in (self.test, self.validation))
        return Parts(place(self.train), test, validation, {name: place(part) for name, part in self.also_test.items()})


@dataclass(frozen=True)
class Layout:
    """Files as they come together in a directory, or in one of the ``folders`` inside it, and how they are written."""

    parts: Parts
    folders: tuple[str, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OnHub:
    """A data set of the hub, or one of its configurations, and the columns that it has there."""

    name: str
    config: str | None
    parts: Parts
    reading: Mapping[str, Any] = field(default_factory=dict)
    revision: str | None = None

    def copies(self) -> tuple[Layout, ...]:
        """How a download of its repository looks: a Parquet file for each split, in a folder of the config's name."""
        folders = ("data", self.config or "default")
        return tuple(
            Layout(self.parts.each(pattern.format), folders, self.reading)
            for pattern in ("{}-00000-of-00001*.parquet", "{}.parquet", "{}/0000.parquet")
        )


_AS_PARQUET = "refs/convert/parquet"  # the hub's own copy of a data set whose repository holds a script


@dataclass(frozen=True)
class Known:
    """A data set. ``settings`` are options that suit it, ``reading`` those that hold for all of its forms."""

    task: str
    title: str
    rows: tuple[int, int]
    layouts: tuple[Layout, ...] = ()
    hub: OnHub | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # where it is from, and its terms as stated there


_DEV = Parts("train.tsv", "dev.tsv")
_ON_GLUE = Parts("train", "validation")
_ENTAILMENT = ("0=entailment", "1=not_entailment")
_GLUE = "GLUE, gluebenchmark.com"


def _glue(config: str, reading: Mapping[str, Any], parts: Parts = _ON_GLUE) -> OnHub:
    return OnHub("nyu-mll/glue", config, parts, reading)


KNOWN: Mapping[str, Known] = MappingProxyType(
    {
        "cola": Known(
            "classification",
            "is an English sentence acceptable?",
            (8_551, 1_043),
            (
                Layout(_DEV, ("CoLA",), {"columns": ("source", "label", "note", "sentence"), "source": "source"}),
                # The authors' own layout. The book chapter, and others who have no more of it, judge by the second dev set.
                Layout(
                    Parts("in_domain_train.tsv", "out_of_domain_dev.tsv"),
                    ("raw", "cola_public/raw", "tokenized"),
                    {"columns": ("source", "label", "note", "sentence"), "source": "source"},
                ),
            ),
            _glue("cola", {}),
            {"metric": "matthews_correlation"},
            {"text": "sentence", "label": "label", "label_names": ("0=unacceptable", "1=acceptable"), "quoting": "literal"},
            "nyu-mll.github.io/CoLA; authors' copyright, research use",
        ),
        "sst2": Known(
            "classification",
            "is a phrase of a film review positive?",
            (67_349, 872),
            (Layout(_DEV, ("SST-2",)),),
            _glue("sst2", {}),
            {"metric": "accuracy", "epochs": 3, "validation_fraction": 0.03},
            {"text": "sentence", "label": "label", "label_names": ("0=negative", "1=positive"), "quoting": "literal"},
            _GLUE,
        ),
        "mrpc": Known(
            "classification",
            "do two sentences say the same?",
            (3_668, 408),
            (
                Layout(_DEV, ("MRPC",), {"text": "#1 String", "pair": "#2 String", "label": "Quality"}),
                Layout(
                    Parts("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"),
                    ("MRPC",),
                    {"text": "#1 String", "pair": "#2 String", "label": "Quality"},
                ),
            ),
            _glue("mrpc", {"text": "sentence1", "pair": "sentence2", "label": "label"}),
            {"metric": "f1"},
            {"label_names": ("0=not_equivalent", "1=equivalent"), "quoting": "literal"},
            "Microsoft Research Paraphrase Corpus; its own licence",
        ),
        "qqp": Known(
            "classification",
            "do two questions ask the same?",
            (363_846, 40_430),
            # Some questions of the published file hold line breaks that nothing encloses; each leaves two broken rows.
            (
                Layout(
                    _DEV,
                    ("QQP",),
                    {"text": "question1", "pair": "question2", "label": "is_duplicate", "uneven_rows": "skip"},
                ),
            ),
            _glue("qqp", {"text": "question1", "pair": "question2", "label": "label"}),
            {"metric": "f1", "epochs": 3, "validation_fraction": 0.01},
            {"label_names": ("0=not_duplicate", "1=duplicate"), "quoting": "literal"},
            "Quora Question Pairs; Quora's terms of service",
        ),
        "stsb": Known(
            "regression",
            "how alike are two sentences, from 0 to 5?",
            (5_749, 1_500),
            (Layout(_DEV, ("STS-B",), {"label": "score"}),),
            _glue("stsb", {"label": "label"}),
            reading={"text": "sentence1", "pair": "sentence2", "quoting": "literal"},
            source="STS benchmark; its own LICENSE.txt",
        ),
        "mnli": Known(
            "classification",
            "does a sentence follow from another, in ten genres?",
            (392_702, 9_815),
            (
                Layout(
                    Parts("train.tsv", "dev_matched.tsv", also_test={"mismatched": "dev_mismatched.tsv"}),
                    ("MNLI",),
                    {"label": "gold_label"},
                ),
            ),
            _glue(
                "mnli",
                {"label": "label"},
                Parts("train", "validation_matched", also_test={"mismatched": "validation_mismatched"}),
            ),
            {"metric": "accuracy", "epochs": 3, "validation_fraction": 0.01},
            {
                "text": "sentence1",
                "pair": "sentence2",
                "label_names": ("0=entailment", "1=neutral", "2=contradiction"),
                "quoting": "literal",
            },
            "MultiNLI; terms by part: OANC licence, CC BY-SA 3.0, CC BY 3.0",
        ),
        "qnli": Known(
            "classification",
            "does a sentence answer a question?",
            (104_743, 5_463),
            (Layout(_DEV, ("QNLI",)),),
            _glue("qnli", {}),
            {"metric": "accuracy", "epochs": 3, "validation_fraction": 0.02, "max_length": 256},
            {"text": "question", "pair": "sentence", "label": "label", "label_names": _ENTAILMENT, "quoting": "literal"},
            "made of SQuAD; CC BY-SA 4.0",
        ),
        "rte": Known(
            "classification",
            "does a sentence follow from another?",
            (2_490, 277),
            (Layout(_DEV, ("RTE",)),),
            _glue("rte", {}),
            {"metric": "accuracy", "max_length": 256},
            {"text": "sentence1", "pair": "sentence2", "label": "label", "label_names": _ENTAILMENT, "quoting": "literal"},
            _GLUE,
        ),
        "wnli": Known(
            "classification",
            "does a sentence with its pronoun resolved follow?",
            (635, 71),
            (Layout(_DEV, ("WNLI",)),),
            _glue("wnli", {}),
            {"metric": "accuracy"},
            {
                "text": "sentence1",
                "pair": "sentence2",
                "label": "label",
                "label_names": ("0=not_entailment", "1=entailment"),
                "quoting": "literal",
            },
            "GLUE, after the Winograd Schema Challenge; its dev set contradicts its training set: few beat the majority",
        ),
        "ag_news": Known(
            "classification",
            "which of 4 topics is a news item of?",
            (120_000, 7_600),
            (),
            OnHub("fancyzhx/ag_news", None, Parts("train", "test")),
            {"metric": "accuracy", "epochs": 3, "validation_fraction": 0.02, "max_length": 256},
            {"text": "text", "label": "label", "label_names": ("0=World", "1=Sports", "2=Business", "3=Sci/Tech")},
            "AG's corpus of news articles; for research, not for commerce",
        ),
        "imdb": Known(
            "classification",
            "is a film review positive?",
            (25_000, 25_000),
            (),
            OnHub("stanfordnlp/imdb", "plain_text", Parts("train", "test")),
            {"metric": "accuracy", "max_length": 512, "validation_fraction": 0.05},
            {"text": "text", "label": "label", "label_names": ("0=neg", "1=pos")},
            "Large Movie Review Dataset, ai.stanford.edu/~amaas/data/sentiment; terms unstated",
        ),
        "emotion": Known(
            "classification",
            "which of 6 emotions is in a message?",
            (16_000, 2_000),
            (
                Layout(
                    Parts("train.txt", "test.txt", "val.txt"),
                    reading={"columns": ("text", "label"), "delimiter": ";", "quoting": "literal"},
                ),
            ),
            OnHub("dair-ai/emotion", "split", Parts("train", "test", "validation")),
            {"metric": "f1_macro"},
            {
                "text": "text",
                "label": "label",
                "label_names": ("0=sadness", "1=joy", "2=love", "3=anger", "4=fear", "5=surprise"),
            },
            "CARER (Saravia et al. 2018); for education and research",
        ),
        "banking77": Known(
            "classification",
            "which of 77 things does a bank's client want?",
            (10_003, 3_080),
            (Layout(Parts("train.csv", "test.csv"), ("banking77",), {"label": "category"}),),
            OnHub("legacy-datasets/banking77", None, Parts("train", "test"), {"label": "label"}),
            {"metric": "accuracy", "epochs": 10},
            {"text": "text"},
            "PolyAI; CC BY 4.0",
        ),
        "clinc": Known(
            "classification",
            "which of 150 intents has a request, or none?",
            (15_250, 5_500),
            (),
            OnHub("clinc/clinc_oos", "plus", Parts("train", "test", "validation")),
            {"metric": "accuracy", "epochs": 10},
            {"text": "text", "label": "intent"},
            "CLINC150, with its requests out of scope; CC BY 3.0",
        ),
        "chnsenticorp": Known(
            "classification",
            "is a Chinese review positive?",
            (9_600, 1_200),
            (Layout(Parts("train.tsv", "test.tsv", "dev.tsv"), ("chnsenticorp",), {"text": "text_a"}),),
            OnHub("lansinuote/ChnSentiCorp", None, Parts("train", "test", "validation"), {"text": "text"}),
            {"metric": "accuracy", "max_length": 256, "model": "bert-base-chinese"},
            {"label": "label", "label_names": ("0=negative", "1=positive"), "quoting": "literal"},
            "ChnSentiCorp (Tan Songbo); terms unstated",
        ),
        "conll2003": Known(
            "tagging",
            "persons, places, organisations and others in English news",
            (14_041, 3_453),
            (
                Layout(Parts("eng.train", "eng.testb", "eng.testa"), ("conll2003",)),
                Layout(Parts("train.txt", "test.txt", "valid.txt")),
            ),
            OnHub(
                "lhoestq/conll2003",
                None,
                Parts("train", "test", "validation"),
                {"token_column": "tokens", "tag_column": "ner_tags"},
            ),
            source="CoNLL-2003 shared task; the text under Reuters' terms",
        ),
        "weibo_ner": Known(
            "tagging",
            "names and mentions in Chinese posts",
            (1_350, 270),
            (
                Layout(
                    Parts("weiboNER_2nd_conll.train", "weiboNER_2nd_conll.test", "weiboNER_2nd_conll.dev"), ("ner_weibo",)
                ),
            ),
            OnHub(
                "hltcoe/weibo_ner",
                None,
                Parts("train", "test", "validation"),
                {"token_column": "tokens", "tag_column": "ner_tags"},
                _AS_PARQUET,
            ),
            {"model": "bert-base-chinese"},
            # Behind each character stands the number of its place in its word.
            {"drop_from_token": "(?<=.)[0-9]+$"},
            source="github.com/hltcoe/golden-horse; annotation CC BY-SA 3.0",
        ),
        "squad": Known(
            "question-answering",
            "which words of a paragraph answer a question?",
            (87_599, 10_570),
            (Layout(Parts("train-v1.1*.json", "dev-v1.1*.json"), ("squad",)),),
            OnHub("rajpurkar/squad", "plain_text", Parts("train", "validation")),
            source="SQuAD 1.1; CC BY-SA 4.0",
        ),
        "squad_v2": Known(
            "question-answering",
            "the same, where there may be no answer",
            (130_319, 11_873),
            (
                Layout(Parts("train-v2.0*.json", "dev-v2.0*.json"), ("squad",)),
                Layout(Parts("v2.0*train*.json", "v2.0*dev*.json"), ("squad",)),
            ),
            OnHub("rajpurkar/squad_v2", "squad_v2", Parts("train", "validation")),
            source="SQuAD 2.0; CC BY-SA 4.0",
        ),
        "swag": Known(
            "multiple-choice",
            "what happens next, of 4 endings?",
            (73_546, 20_006),
            (Layout(Parts("train.csv", "val.csv"), ("swag", "data")), Layout(Parts("swag*.jsonl"), ("choice",))),
            OnHub("allenai/swag", "regular", Parts("train", "validation")),
            source="SWAG (Zellers et al. 2018), rowanzellers.com/swag; terms unstated",
        ),
        "codah": Known(
            "multiple-choice",
            "how does a sentence end sensibly, of 4 endings?",
            (1_665, 555),
            (Layout(Parts("train.tsv", "test.tsv", "dev.tsv"), ("codah",)),),
            OnHub(
                "jaredfern/codah",
                "fold_0",
                Parts("train", "test", "validation"),
                {"text": "question_propmt", "endings": ("candidate_answers",), "label": "correct_answer_idx"},
            ),
            source="CODAH; ODC-BY 1.0",
        ),
    }
)
