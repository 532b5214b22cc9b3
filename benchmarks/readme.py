"""Tables of numbers in README and guides, out of `benchmarks/results`: `python -m benchmarks.readme` writes them anew.

A test holds the pages to what this makes, so that no figure there is without its file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import records, stability

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs/small-data.md"]
GENERATIONS = {("AMD EPYC", "family 25"): "Zen 3 or 4", ("AMD EPYC", "family 26"): "Zen 5"}
SIDES = {
    "padded-128": "transformers, padded to 128 tokens",
    "padded-longest": "transformers, padded to the batch's longest",
    "trainer": "transformers.Trainer, grouped by length",
    "bertwright": "**bertwright**",
    "bertwright-bfloat16": "**bertwright**, products in bfloat16",
}


def results(name: str) -> dict[str, Any]:
    """What a result file holds."""
    found = records.held(name)
    assert found is not None, f"{name}: no such result"
    return found


def processor(*names: str) -> str:
    """The processor that all these results were measured on, with its generation where its family tells."""
    machines = [json.loads((records.RESULTS / f"{name}.json").read_text())["machine"] for name in names]
    found = {(machine["processor"].partition(",")[0], machine.get("processor_family")) for machine in machines}
    assert len(found) == 1, f"{names}: measured on several processors: {found}"
    name, family = found.pop()
    generation = GENERATIONS.get((name, (family or "").partition(",")[0]))
    return name if generation is None else f"{name} ({generation})"


def speed() -> str:
    """Fine-tuning, prediction and pretraining beside their peers."""
    fine, losses, predicted = results("finetune_cpu_speed"), results("finetune_cpu_losses"), results("predict_cpu")
    pretrained = results("pretrain_cpu_128")
    lines = [
        f"All on 2 cores of an {processor('finetune_cpu_speed', 'finetune_cpu_losses', 'predict_cpu', 'pretrain_cpu_128')}. "
        "Fine-tuning all-MiniLM-L6-v2 on CoLA, batches of 32, float32 unless said,",
        "median of three rounds in turns ([finetune_cpu_speed.json](benchmarks/results/finetune_cpu_speed.json)):",
        "",
        "| | steps/s | real tokens/s | memory | bertwright is faster by |",
        "|---|---|---|---|---|",
    ]
    for side, title in SIDES.items():
        m, ratio = fine["medians"][side], fine["ratios_bertwright_over"].get(side)
        lines.append(
            f"| {title} | {m['steps_per_second']:.2f} | {m['tokens_per_second']:,.0f} | "
            f"{m['peak_memory_bytes'] / 2**30:.1f} GiB | " + (f"{ratio['real_tokens']:.1f} times" if ratio else "") + " |"
        )
    lines += [
        "",
        "Without dropout, the losses of its packed batches and of transformers' padded ones differ by at most "
        f"{losses['largest_difference']:.0e}",
        f"over {len(losses['curves']['bertwright'])} steps "
        "([finetune_cpu_losses.json](benchmarks/results/finetune_cpu_losses.json)).",
        "",
        "Prediction, float32, whole calls with tokenisation, beside transformers with sorted batches",
        "([predict_cpu.json](benchmarks/results/predict_cpu.json)):",
        "",
        "| | transformers | bertwright | |",
        "|---|---|---|---|",
    ]
    for name in ("CoLA sentences", "SQuAD paragraphs"):
        theirs, ours = (predicted[name]["texts_per_second"][side] for side in ("transformers", "bertwright"))
        lines.append(f"| {name} | {theirs:.0f} texts/s | {ours:.0f} texts/s | {predicted[name]['ratio']:.1f} times |")
    lines += [
        "",
        "Pretraining (masked words and next sentence, 64 sequences of 128 tokens, float32) beside `BertForPreTraining` with",
        "its usual collator ([pretrain_cpu_128.json](benchmarks/results/pretrain_cpu_128.json)):",
        "",
        "| config | transformers | bertwright | | of the machine's peak |",
        "|---|---|---|---|---|",
    ]
    for name in ("mini", "small"):
        if name in pretrained:
            found = pretrained[name]
            theirs, ours = (found["tokens_per_second"][side] for side in ("transformers", "bertwright"))
            share = found["fraction_of_peak"]["bertwright"]
            lines.append(
                f"| {name} | {theirs:,.0f} tokens/s | {ours:,.0f} tokens/s | {found['ratio']:.1f} times | {share:.0%} |"
            )
    return "\n".join(lines)


def quality() -> str:
    """Scores over seeds beside the peer's."""
    lines = [
        "Quality: Matthews correlation on CoLA, four epochs at 5e-5, best epoch by validation, mean ± standard deviation",
        "over seeds ([bertwright](benchmarks/results/finetune_cpu_quality_bertwright_5e-5.json),",
        "[transformers](benchmarks/results/finetune_cpu_quality_padded_longest_5e-5.json)):",
        "",
        "| | seeds | validation | out of domain |",
        "|---|---|---|---|",
    ]
    for side in ("padded-longest", "bertwright"):
        found = results(f"finetune_cpu_quality_{side.replace('-', '_')}_5e-5")
        spread = [records.spread(found["summary"][part]) for part in ("validation", "test")]
        lines.append(f"| {SIDES[side]} | {len(found['seeds'])} | {' | '.join(spread)} |")
    return "\n".join(lines)


def two_steps() -> str:
    """What the first step is worth: three tasks from pretrained and from random weights."""
    found = {task: records.held(f"two_steps_{task.lower()}") for task in ("CoLA", "RTE", "banking77")}
    # One start alone compares nothing.
    of_task = {task: held for task, held in found.items() if held and len(held["starts"]) == 2}
    made = next(iter(of_task.values()))["pretraining"]["metrics"]
    heldout, training = made["heldout"], made["training"]
    files = ", ".join(f"[{task}](benchmarks/results/two_steps_{task.lower()}.json)" for task in of_task)
    lines = [
        f"What a first step of {training['seconds_in_all'] / 60:.0f} minutes on two cores is worth to the second: a mini",
        f"(4 layers, 256 wide) made from {training['tokens'] / 1e6:.1f} M tokens of Wikipedia (held-out text: masked words "
        f"{heldout['mlm_accuracy']:.0%} right, next sentence {heldout['nsp_accuracy']:.0%}),",
        "fine-tuned for four epochs, beside the same model with random weights. Each has the best of its learning rates by",
        f"validation; scores on test ({files}):",
        "",
        "| | measured by | seeds | random weights | pretrained | gain |",
        "|---|---|---|---|---|---|",
    ]
    for task, held in of_task.items():
        starts = held["starts"]
        spread = {name: one["over_seeds"]["test"] for name, one in starts.items()}
        cells = [records.spread(spread[name]) for name in ("random", "pretrained")]
        gain = spread["pretrained"]["mean"] - spread["random"]["mean"]
        measure = starts["random"]["metric"].replace("_", " ")
        lines.append(f"| {task} | {measure} | {len(starts['random']['seeds'])} | {' | '.join(cells)} | {gain:+.3f} |")
    return "\n".join(lines)


TASKS = {
    "cola": ("CoLA, out of domain", {"matthews_correlation": "Matthews"}),
    "sst2": ("SST-2, 10,000 rows", {"accuracy": "accuracy"}),
    "banking77": ("banking77", {"accuracy": "accuracy"}),
    "chnsenticorp": ("chnsenticorp (Chinese)", {"accuracy": "accuracy"}),
    "rte": ("RTE", {"accuracy": "accuracy"}),
    "stsb": ("STS-B", {"pearson": "Pearson", "spearman": "Spearman"}),
    "conll2003": ("CoNLL-2003", {"f1": "F1 of spans"}),
    "weibo_ner": ("weibo (Chinese)", {"f1": "F1 of spans"}),
    "squad": ("SQuAD 1.1, a fifth of train", {"exact_match": "EM", "f1": "F1"}),
    "squad_v2": ("SQuAD 2.0, a sample", {"exact_match": "EM", "f1": "F1"}),
    "codah": ("CODAH", {"accuracy": "accuracy"}),
}


def tasks() -> str:
    """Every task's scores over seeds, and the peer's score and time where it was measured."""
    timed_files = [f"task_{name}_time" for name in TASKS if records.held(f"task_{name}_time")]
    lines = [
        "All-MiniLM-L6-v2 fine-tuned on each task's data by `bertwright finetune NAME --data FOLDER`, products in",
        "bfloat16, one thread of 2 cores; mean ± standard deviation over seeds of the test score, the epoch chosen on",
        "validation. The Chinese ones start from random weights of config mini. The Trainer of transformers has the same",
        "checkpoint, rows, batch size and epochs, and else what its example scripts have by default; for its scores it has",
        "products in bfloat16 and batches of like length too. Where steps are timed, on two threads of an "
        f"{processor(*timed_files)},",
        "it pads as the scripts do; the three numbers there are of both sides in float32, of both in bfloat16, and of",
        "bertwright in bfloat16 beside the Trainer in float32, its default. The two are compared on four data sets. CoLA",
        "and RTE have `--epochs 4` here; [the default for so few rows](docs/small-data.md#what-was-measured) is better on",
        "validation.",
        "Files: `benchmarks/results/task_*.json`.",
        "",
        "| data | measured by | seeds | bertwright | Trainer | a step is faster by |",
        "|---|---|---|---|---|---|",
    ]
    for name, (title, measures) in TASKS.items():
        ours, peer, timed = (records.held(f"task_{name}{end}") for end in ("", "_trainer", "_time"))
        if not (ours or peer or timed):
            continue
        cells = []
        for held in (ours, peer):
            found = [records.spread(held["over_seeds"]["test"][measure]) for measure in measures] if held else []
            cells.append(" / ".join(found))
        seeds = ", ".join(dict.fromkeys(str(len(held["seeds"])) for held in (ours, peer) if held))
        ratio = " / ".join(f"{times:.1f}" for times in faster(timed)) + " times" if timed else ""
        lines.append(f"| {title} | {' / '.join(measures.values())} | {seeds} | {cells[0]} | {cells[1]} | {ratio} |")
    return "\n".join(lines)


def faster(timed: dict[str, Any]) -> list[float]:
    """Seconds of the Trainer's step by ours: both in float32, both in bfloat16, and ours in bfloat16 beside its default."""
    ratios: list[float] = [found["ratio"] for found in timed.values()]
    if len(timed) > 1:
        ours, theirs = timed["bfloat16"]["seconds_a_step"], timed["float32"]["seconds_a_step"]
        ratios.append(theirs["trainer"] / ours["bertwright"])
    return ratios


def few_rows() -> str:
    """The options for few rows, one after the other, over seeds."""
    lines: list[str] = []
    for task, title in (("rte", "RTE, accuracy"), ("cola", "CoLA, Matthews correlation, test out of domain")):
        if held := records.held(f"stability_{task}"):
            file = f"[stability_{task}.json](../benchmarks/results/stability_{task}.json)"
            lines += [f"{title}, in per cent ({file}):", "", stability.table(held), ""]
    return "\n".join(lines).rstrip()


PARTS: dict[str, Callable[[], str]] = {
    "speed": speed,
    "quality": quality,
    "tasks": tasks,
    "two steps": two_steps,
    "few rows": few_rows,
}


def filled(text: str) -> str:
    """A page with its tables made anew."""
    return re.sub(
        r"<!-- numbers: (.*?) -->\n.*?<!-- /numbers -->",
        lambda found: f"<!-- numbers: {found[1]} -->\n{PARTS[found[1]]()}\n<!-- /numbers -->",
        text,
        flags=re.S,
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
