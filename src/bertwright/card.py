"""The model card: what a directory holds, how it was made, how good it is, how to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertwright.evaluation.report import measured_splits

if TYPE_CHECKING:
    from bertwright.model import BertConfig
    from bertwright.predictor import Predictor
    from bertwright.training.pretraining_recipe import PretrainingRecipe


def model_card(model: Predictor, origin: str, metrics: dict[str, Any]) -> str:
    """Return the card as Markdown, with the metadata that model hubs read."""
    config, task = model.model.config, model.task
    labels = ", ".join(f"`{label}`" for label in model.labels[:12]) + (", …" if len(model.labels) > 12 else "")
    titles = {name: title for name, title in task.METRICS.items() if name in metrics["validation"]}
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {task.PIPELINE}",
        "tags: [bert, bertwright]",
        "---",
        "",
        "# A fine-tuned BERT",
        "",
        f"A BERT of {config.num_hidden_layers} layers, {config.hidden_size} wide, fine-tuned from `{origin}` for "
        f"{model.recipe.task}: {task.SUMMARY}" + (f"; {len(model.labels)} labels: {labels}." if labels else "."),
        *(["", f"The data: {named} (`{model.recipe.train}`)."] if (named := model.recipe.dataset) else []),
        "",
        "## How good it is",
        "",
        f"| split | examples | {' | '.join(titles.values())} |",
        "| --- | --- |" + " --- |" * len(titles),
    ]
    for split, measured in measured_splits(metrics).items():
        scores = " | ".join(f"{measured[name]:.4f}" for name in titles)
        lines.append(f"| {split} | {measured['examples']:,} | {scores} |")
    lines += [
        "",
        f"The epoch (and, of several seeds, the seed) was chosen by {metrics['chosen_by']}; the validation figures are "
        "therefore a little flattering.",
        "",
    ]
    if (kind := metrics.get("soup", {}).get("kept")) is not None:
        made = next(one for one in metrics["soup"]["tried"] if one["kind"] == kind)
        seeds = ", ".join(map(str, made["seeds"]))
        lines += [f"Its weights are the mean of those that the seeds {seeds} ended with, chosen by the same validation.", ""]
    if metrics["interrupted"]:
        lines += ["**The run was interrupted: this is its best state so far.**", ""]
    if len(model.model.head):
        lines += ["It has dense layers of its own before the classifier: `transformers` opens its encoder only.", ""]
    in_shell, in_python = task.asked(model.recipe)
    lines += [
        "## How to use it",
        "",
        f"    bertwright predict THIS_DIRECTORY {in_shell}",
        "",
        f'or in Python: `bertwright.load("THIS_DIRECTORY").predict({in_python})`.',
        "",
        "## How to make it again",
        "",
        "    bertwright finetune --recipe THIS_DIRECTORY/recipe.toml --out ANOTHER_DIRECTORY",
        "",
    ]
    return "\n".join(lines)


def pretraining_card(config: BertConfig, recipe: PretrainingRecipe, origin: str, metrics: dict[str, Any]) -> str:
    """Return the card of a pretrained model as Markdown."""
    training, heldout = metrics["training"], metrics["heldout"]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: fill-mask",
        "tags: [bert, bertwright]",
        "---",
        "",
        "# A pretrained BERT",
        "",
        f"A BERT of {config.num_hidden_layers} layers, {config.hidden_size} wide, over {config.vocab_size:,} word pieces, "
        f"pretrained from {origin} with the objective {recipe.objective}.",
        "",
        f"{training['steps']:,} steps, {training['tokens']:,} tokens, {training['seconds_in_all'] / 60:.1f} minutes on "
        f"{training['processes']} of: {training['machine']}, {training['precision']}.",
        "",
        "## How good it is, on text that was held out",
        "",
        "| measure | value |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in heldout.items()),
        "",
        "## How to use it",
        "",
        '    bertwright fill-mask THIS_DIRECTORY "The capital of France is [MASK]."',
        "    bertwright finetune --model THIS_DIRECTORY --train train.tsv --text text --label label --out ANOTHER_DIRECTORY",
        "",
        "## How to make it again",
        "",
        "    bertwright pretrain --recipe THIS_DIRECTORY/pretraining.toml --out ANOTHER_DIRECTORY",
        "",
    ]
    return "\n".join(lines)
