"""The model card of a cut model: how it was made, what was measured, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunepath.allocation.allocate import Allocation
from prunepath.humanize import format_bytes, format_count
from prunepath.path import Provenance

__all__ = ["model_card"]


def model_card(
    allocation: Allocation,
    provenance: Provenance,
    *,
    loader: str,
    refit: Mapping[str, Any],
    difference: float,
    folder_name: str,
) -> str:
    """Markdown with a metadata header, ready to be the README of a Hub repository.

    Args:
        allocation: what was cut.
        provenance: how the path was found.
        loader: `"transformers"` or `"prunepath"`.
        refit: what the refit did, name -> value.
        difference: largest logit difference after reloading.
        folder_name: name of the model's folder, for the example.
    """
    dense, cost = allocation.dense, allocation.cost
    length = allocation.options.sequence_length
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
        (f"MACs for {length} tokens", format_count, dense.macs, cost.macs),
        ("weights", format_bytes, dense.weight_bytes, cost.weight_bytes),
        ("KV cache per token", format_bytes, dense.kv_bytes_per_token, cost.kv_bytes_per_token),
    ]
    table = ["| | dense | this model | kept |", "|---|---|---|---|"]
    table += [
        f"| {name} | {write(before)} | {write(after)} | {100 * after / max(1, before):.1f}% |"
        for name, write, before, after in rows
    ]
    loading = ["```python"]
    if loader == "prunepath":
        loading += ["import prunepath  # teaches the Auto classes to read this model"]
    loading += [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{folder_name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{folder_name}")',
        "```",
    ]
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
        *loading,
        "",
        "## How it was made",
        "",
        f"- search: method `{provenance.method}`" + (f" ({settings})" if settings else ""),
        f"- objective `{provenance.objective}`, {provenance.tokens} calibration tokens of "
        f"{provenance.data}, seed {provenance.seed}",
        f"- layout `{allocation.options.layout}`, widths in multiples of "
        f"{allocation.options.multiple}",
        "- refit: " + ", ".join(f"{key} {value}" for key, value in refit.items()),
        f"- weights of the dense model: sha256 `{provenance.model_fingerprint}`",
        f"- read back in a fresh process, the largest logit difference was {difference:.2g}",
        "",
        "The licence of the model it was cut from applies.",
        "",
    ]
    return "\n".join(lines)
