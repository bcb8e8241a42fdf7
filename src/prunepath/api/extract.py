"""The verb `extract`: a path and a budget in, a smaller model on disk out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.allocation.budget import Budget
    from prunepath.api.workshop import Extraction
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress

__all__ = ["as_budget", "extract", "loading_sentence"]


def as_budget(
    *,
    params: str | None = None,
    macs: str | None = None,
    memory: str | None = None,
    latency: str | None = None,
    ratio: float | None = None,
) -> Budget:
    """The one budget that was given.

    Raises:
        RequestError: none or several were given.
        BudgetError: it is malformed.
    """
    from prunepath.allocation.budget import Budget

    given = {"params": params, "macs": macs, "memory": memory, "latency": latency}
    named = {name: text for name, text in given.items() if text is not None}
    if len(named) + (ratio is not None) != 1:
        asked = ", ".join([*named, *(["ratio"] if ratio is not None else [])]) or "none"
        raise RequestError(
            f"exactly one budget is needed and {asked} was given; use one of --params 70%, "
            "--macs 60%, --memory 200MB, --latency 12ms or --ratio 0.3"
        )
    if ratio is not None:
        return Budget.from_ratio(ratio)
    ((name, text),) = named.items()
    return Budget.parse(name, text)


def extract(
    path: str | Path | SolutionPath,
    *,
    output: str | Path | None = None,
    budget: Budget | None = None,
    params: str | None = None,
    macs: str | None = None,
    memory: str | None = None,
    latency: str | None = None,
    ratio: float | None = None,
    layout: str | None = None,
    kinds: Sequence[str] | None = None,
    multiple: int | None = None,
    floor: int | str | None = None,
    sequence_length: int | None = None,
    refit: str | None = None,
    bias: bool | None = None,
    rule: str | None = None,
    rule_set: Mapping[str, Any] | None = None,
    rearrange: bool | str | None = None,
    token_share: float = 0.0,
    token_decay: float = 1.0,
    token_schedule: Sequence[int] | str = (),
    model: Any = None,
    tokenizer: Any = None,
    dtype: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **hub: Any,
) -> Extraction:
    """Cut the largest model at or under a budget, repair it, write it and check that it loads.

    Args:
        path: a solution path, its folder or its Hub id.
        output: folder for the model; None keeps it in memory.
        budget: a `Budget`; or exactly one of the next five.
        params, macs, memory, latency: `"70%"` of the dense model kept, or an absolute size.
        ratio: fraction of the block parameters to remove.
        layout: `"per-layer"` (best quality) or `"uniform"` (loads everywhere). Of this and the
            next five, what is not given is the path's recipe's, and where that says nothing
            per-layer, multiple 8, floor 8 and refit sequential.
        kinds: unit kinds that may be cut; by default what the layout cuts best.
        multiple: widths end as multiples of this.
        floor: smallest width any group keeps, or a part of each group's own, `"10%"`.
        sequence_length: tokens that MACs, memory and latency are stated for, by default 512;
            nothing changes with it where samples are of one size, as images are.
        refit: `"sequential"`, `"moments"` (one-shot), `"scales"` (one number per unit), `"bias"`
            (biases alone move) or `"none"`.
        bias: let `"moments"` move biases, too.
        rule: `"order"` (damage per cost; smaller budgets keep subsets), `"knapsack"` (least sum
            of damages, of two kinds of units), or one that runs the model on the samples beside the
            path: `"curves"`, `"evolution"`, `"shares"`.
        rule_set: settings of the rule (`allocation.rules`).
        rearrange: exchange units of every group for others, measured on the samples beside the
            path; numbers and costs stay. `"kwon"` (or True) by what units of a group do together,
            `"swaps"` under a model of all layers that is measured anew where the cut is, `"none"`.
        token_share: part of the saving, of MACs or seconds, that merging patches of an image at
            run time takes, in [0, 1]; the units that leave save the rest.
        token_decay: patches merged in a block relative to the one before it.
        token_schedule: patches to merge in every block, instead of a share; or `"scored"` beside
            a share, which measures what merging does in every block on the samples beside the path
            and takes the schedule of least damage.
        model: the dense model; by default the one the path names.
        tokenizer, dtype, device, trust_remote_code, hub: how to load it.
        overwrite: replace a folder that is not empty.
        progress: who listens.

    Returns:
        The model with what was reached, repaired and checked.

    Raises:
        PrunepathError: one sentence on what was asked, what was found and what to do.

    Example:
        >>> import prunepath
        >>> made = prunepath.extract("path", params="70%", output="small")  # doctest: +SKIP
        >>> print(made.allocation)  # doctest: +SKIP
    """
    from prunepath.allocation.rules import require_rule
    from prunepath.api.repair import require_refit
    from prunepath.api.workshop import Workshop
    from prunepath.files import refuse_used, require_space
    from prunepath.progress import note

    if refit is not None:
        require_refit(refit, bias=bool(bias))
    wish = budget or as_budget(
        params=params, macs=macs, memory=memory, latency=latency, ratio=ratio
    )
    if output is not None:
        refuse_used(output, overwrite=overwrite)
    shop = Workshop(
        path,
        layout=layout,
        kinds=kinds,
        multiple=multiple,
        floor=floor,
        sequence_length=sequence_length,
        refit=refit,
        bias=bias,
        rule=rule,
        rule_set=rule_set,
        rearrange=rearrange,
        token_share=token_share,
        token_decay=token_decay,
        token_schedule=token_schedule,
        progress=progress,
    )
    require_rule(shop.options.rule, shop.options.layout, wish.metric)
    note(progress, loading_sentence(shop.options.layout, shop.options.kinds))
    # Refuse an impossible wish before the model is loaded, where that needs no model.
    if wish.metric != "latency" and not shop.tokens:
        allocation = shop.foresee(wish)
        if output is not None:
            require_space(output, allocation.cost.weight_bytes)
    shop.open(
        model,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        **hub,
    )
    return shop.make(wish, output, overwrite=overwrite)


def loading_sentence(layout: str, kinds: Sequence[str]) -> str:
    """Where the result of an extraction will load, as far as the request says it."""
    if layout == "uniform" and not kinds:
        return (
            "layout uniform: every layer the same size; where the model's config can say it, it "
            "will load in stock transformers and in what reads its files"
        )
    if layout == "uniform":
        return (
            "layout uniform: it will load in stock transformers if the model's config can say what "
            "is cut (whole heads or channels), else with prunepath"
        )
    return (
        f"layout {layout}: it will load with prunepath (prunepath.load, or the Auto classes after "
        "`import prunepath`); --layout uniform loads in more places"
    )
