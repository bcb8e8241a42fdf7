"""The model card of a cut model: how it was made, what was measured, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.allocation.allocate import Allocation
from prunepath.checkpoint.save import loading_class
from prunepath.humanize import format_bytes, format_count
from prunepath.path import Provenance
from prunepath.tasks import TASKS

if TYPE_CHECKING:
    from prunepath.checkpoint.source import OpenedModel
    from prunepath.tasks.task import Task

__all__ = ["model_card"]


def model_card(
    allocation: Allocation,
    provenance: Provenance,
    *,
    loader: str,
    refit: Mapping[str, Any],
    rearranged: Mapping[str, float],
    difference: float,
    folder_name: str,
    model: Any,
    opened: OpenedModel,
    stated_for: str,
) -> str:
    """Markdown with a metadata header, ready to be the README of a Hub repository.

    Args:
        allocation: what was cut.
        provenance: how the path was found.
        loader: `"transformers"` or `"prunepath"`.
        refit: what the refit did, name -> value.
        rearranged: what the rearrangement did, name -> value; empty: none.
        difference: largest difference of an answer after reloading.
        folder_name: name of the model's folder, for the example.
        model: the written model, which says how it loads.
        opened: the dense model, with what prepares its inputs.
        stated_for: what MACs are counted for, for example `"512 tokens"`.
    """
    dense, cost = allocation.dense, allocation.cost
    base = provenance.model_id
    on_hub = base.count("/") == 1 and not base.startswith((".", "/", "~"))
    if not on_hub:  # a folder of this machine: its name says enough, its path helps nobody
        base = Path(base).name
    header = ["---", "library_name: transformers", "tags:", "- prunepath", "- pruned"]
    if on_hub:
        header += [f"base_model: {base}"]
    header += ["---", ""]
    rows = [
        ("parameters", format_count, dense.params, cost.params),
        (f"MACs for {stated_for}", format_count, dense.macs, cost.macs),
        ("weights", format_bytes, dense.weight_bytes, cost.weight_bytes),
    ]
    if dense.kv_bytes_per_token:
        kv = (dense.kv_bytes_per_token, cost.kv_bytes_per_token)
        rows += [("KV cache per token", format_bytes, *kv)]
    table = ["| | dense | this model | kept |", "|---|---|---|---|"]
    table += [
        f"| {name} | {write(before)} | {write(after)} | {100 * after / max(1, before):.1f}% |"
        for name, write, before, after in rows
    ]
    task = TASKS[provenance.task]
    counted = "samples" if opened.tokenizer is None else "tokens"
    settings = ", ".join(f"{k} {v}" for k, v in provenance.method_config.items())
    lines = [
        *header,
        f"# {base}, cut to {format_count(cost.params)} parameters",
        "",
        f"Cut with prunepath "
        f"{provenance.library_version} from `{base}` under the budget {allocation.budget}; "
        f"{100 * allocation.ratio:.1f}% of the block parameters were removed. Nothing was trained.",
        "",
        *table,
        "",
        "## How to load",
        "",
        *_loading(loader, folder_name, task, model, opened),
        "",
        "## How it was made",
        "",
        f"- task `{task.name}`, measured by {task.metric_name}",
        f"- search: method `{provenance.method}`" + (f" ({settings})" if settings else ""),
        *_recipe(provenance),
        f"- objective `{provenance.objective}`, {provenance.tokens} calibration {counted} of "
        f"{provenance.data}, seed {provenance.seed}",
        f"- layout `{allocation.options.layout}`, widths in multiples of "
        f"{allocation.options.multiple}, rule `{allocation.options.rule}`",
        *(
            ["- measured by the rule: " + _listed(allocation.measured)]
            if allocation.measured
            else []
        ),
        *(["- rearranged: " + _listed(rearranged)] if rearranged else []),
        *_merging(allocation),
        "- refit: " + _listed(refit),
        f"- weights of the dense model: sha256 `{provenance.model_fingerprint}`",
        f"- read back in a fresh process, its answers differed by {difference:.2g} at most",
        "",
        "The licence of the model it was cut from applies.",
        "",
    ]
    return "\n".join(lines)


def _recipe(provenance: Provenance) -> list[str]:
    """The line about a recipe and its paper, if the path says."""
    recipe = provenance.recipe
    if not recipe:
        return []
    paper = f" ({recipe['paper']})" if recipe.get("paper") else ""
    return [f"- recipe `{recipe['name']}`{paper}"]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _merging(allocation: Allocation) -> list[str]:
    """What is said of tokens that merge."""
    if allocation.tokens is None:
        return []
    return [
        f"- merges tokens that look alike while it runs: {allocation.tokens}; the answer has the "
        "shape it had"
    ]


def _loading(
    loader: str, folder_name: str, task: Task, model: Any, opened: OpenedModel
) -> list[str]:
    """The lines of Python that load the model and what prepares its inputs."""
    name = loading_class(model, task.auto_classes)
    prepares, called = _preparing(opened)
    imported = [part for part in (name, prepares) if part]
    lines = ["```python"]
    if loader == "prunepath":
        why = "teaches the Auto classes to read this model" if name else "reads this model"
        lines += [f"import prunepath  # {why}"]
    if imported:
        lines += [f"from transformers import {', '.join(imported)}"]
    read = f"{name}.from_pretrained" if name else "prunepath.load"
    lines += ["", f'model = {read}("{folder_name}")']
    if prepares:
        lines += [f'{called} = {prepares}.from_pretrained("{folder_name}")']
    return [*lines, "```"]


def _preparing(opened: OpenedModel) -> tuple[str, str]:
    """The Auto class of what prepares inputs, and what one calls it."""
    text, sound, images = (
        part is not None for part in (opened.tokenizer, opened.processor, opened.image_settings)
    )
    if text and (sound or images):
        return "AutoProcessor", "processor"
    if text:
        return "AutoTokenizer", "tokenizer"
    if sound:
        return "AutoFeatureExtractor", "processor"
    return ("AutoImageProcessor", "processor") if images else ("", "")
