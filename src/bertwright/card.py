"""The model card: what a directory holds, how it was made, how good it is, how to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertwright.predictor import Predictor


def model_card(model: Predictor, origin: str, metrics: dict[str, Any]) -> str:
    """Return the card as Markdown, with the metadata that model hubs read."""
    config, recipe = model.model.config, model.recipe
    labels = ", ".join(f"`{label}`" for label in model.labels[:12]) + (", …" if len(model.labels) > 12 else "")
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags: [bert, bertwright]",
        "---",
        "",
        "# A fine-tuned BERT",
        "",
        f"A BERT of {config.num_hidden_layers} layers, {config.hidden_size} wide, fine-tuned from `{origin}` to classify "
        f"{'pairs of texts' if recipe.pair else 'texts'} into {len(model.labels)} classes: {labels}.",
        "",
        "## How good it is",
        "",
        "| split | examples | accuracy | F1 (macro) | Matthews | majority class alone |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for split in ("validation", "test"):
        if split in metrics:
            m = metrics[split]
            lines.append(
                f"| {split} | {m['examples']:,} | {m['accuracy']:.4f} | {m['f1_macro']:.4f} | "
                f"{m['matthews_correlation']:.4f} | {m['majority_accuracy']:.4f} |"
            )
    lines += [
        "",
        f"The epoch (and, of several seeds, the seed) was chosen by {metrics['chosen_by']}; the validation figures are "
        "therefore a little flattering.",
        "",
    ]
    if metrics["interrupted"]:
        lines += ["**The run was interrupted: this is its best state so far.**", ""]
    if len(model.model.head):
        lines += ["It has dense layers of its own before the classifier: `transformers` opens its encoder only.", ""]
    lines += [
        "## How to use it",
        "",
        '    bertwright predict THIS_DIRECTORY "a text"',
        "",
        'or in Python: `bertwright.load("THIS_DIRECTORY").predict(["a text"])`.',
        "",
        "## How to make it again",
        "",
        "    bertwright finetune --recipe THIS_DIRECTORY/recipe.toml --out ANOTHER_DIRECTORY",
        "",
    ]
    return "\n".join(lines)
