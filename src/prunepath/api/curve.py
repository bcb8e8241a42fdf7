"""The verb `curve`: quality against size from one path, as CSV and PNG, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.allocation.budget import Budget
    from prunepath.api.workshop import Workshop
    from prunepath.data.samples import Samples
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.report.rows import SizeRow

__all__ = ["curve"]


def curve(
    path: str | Path | SolutionPath,
    *,
    output: str | Path,
    points: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
    layouts: Sequence[str] | None = None,
    data: Any = None,
    windows: int | None = None,
    window: int | None = None,
    text_field: str = "",
    label_field: str = "",
    split: str | None = None,
    refit: str | None = None,
    rule: str | None = None,
    rule_set: Mapping[str, Any] | None = None,
    speed: bool = False,
    model: Any = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    **hub: Any,
) -> list[SizeRow]:
    """Cut a path at several ratios, evaluate every size, and draw the curve.

    Every finished point is a line of `curve.jsonl`; running again with the same request goes on
    after the last one.

    Args:
        path: a solution path or its folder.
        output: folder for `curve.csv`, `curve.png` and `curve.jsonl`.
        points: ratios, each the fraction of block parameters removed.
        layouts: layouts to cut every point with; by default that of the path's recipe.
        data, windows, window, text_field, label_field, split: what to measure on, see `evaluate`.
        refit, rule, rule_set: see `extract`.
        speed: measure how fast every point runs, too.
        model, tokenizer, trust_remote_code, hub: the dense model, see `extract`.
        progress: who listens.

    Returns:
        The dense row, then one row per layout and point.

    Raises:
        PrunepathError: one sentence on what was asked, what was found and what to do.

    Example:
        >>> import prunepath
        >>> rows = prunepath.curve("path", output="curve", points=[0.2, 0.4])  # doctest: +SKIP
    """
    from prunepath.allocation.budget import Budget
    from prunepath.api.evaluate import evaluation_samples
    from prunepath.api.workshop import Workshop
    from prunepath.files import atomic_write
    from prunepath.progress import note
    from prunepath.report.curve import save_curve
    from prunepath.report.rows import append_row, read_rows
    from prunepath.report.table import csv_table

    if not points:
        raise RequestError("no points were given; pass ratios such as --points 0.1,0.3,0.5")
    if layouts is not None and not layouts:
        raise RequestError("no layouts were given; use per-layer, uniform or both")
    budgets = {point: Budget.from_ratio(point) for point in points}
    made = [
        Workshop(
            path,
            layout=layout,
            sequence_length=window,
            refit=refit,
            rule=rule,
            rule_set=rule_set,
            progress=progress,
        )
        for layout in layouts or (None,)
    ]
    shops = {shop.options.layout: shop for shop in made}
    first = made[0]
    for shop in shops.values():  # refuse an impossible point before any work
        for budget in budgets.values():
            shop.foresee(budget)
    first.open(model, tokenizer=tokenizer, trust_remote_code=trust_remote_code, **hub)
    for shop in shops.values():
        shop.borrow(first)
    samples = evaluation_samples(
        first.opened,
        data,
        windows=windows,
        window=window,
        text_field=text_field,
        label_field=label_field,
        split=split,
    )
    for remark in samples.notes:
        note(progress, remark)
    folder = Path(output)
    asked = [first.path.fingerprint, samples.fingerprint, first.refit, f"speed={speed}"]
    if first.options.rule != "order":
        asked += [first.options.rule, *(f"{k}={v}" for k, v in first.options.rule_set.items())]
    request = _request(*asked)
    done_file = folder / f"curve-{request}.jsonl"
    done = {row.name: row for row in read_rows(done_file)} if done_file.exists() else {}

    def measured(name: str, make: Any) -> SizeRow:
        if name not in done:
            note(progress, f"measuring {name}")
            done[name] = make()
            append_row(done_file, done[name])
        return done[name]

    dense = measured("dense", lambda: _row("dense", first, None, samples, window, speed, progress))
    series: dict[str, list[SizeRow]] = {}
    for layout, shop in shops.items():
        for point, budget in sorted(budgets.items()):
            name = f"{layout} {point:g}"
            row = measured(
                name,
                lambda s=shop, b=budget, n=name: _row(n, s, b, samples, window, speed, progress),
            )
            series.setdefault(layout, []).append(row)
    rows = [dense, *(row for layout in series for row in series[layout])]
    with atomic_write(folder / "curve.csv") as beside:
        beside.write_text(csv_table(rows), encoding="utf-8")
    save_curve(folder / "curve.png", series, dense=dense, title=first.path.provenance.model_id)
    return rows


def _row(
    name: str,
    shop: Workshop,
    budget: Budget | None,
    samples: Samples,
    window: int | None,
    speed: bool,
    progress: Progress | None,
) -> SizeRow:
    from prunepath.api.evaluate import measured_speed
    from prunepath.report.rows import SizeRow
    from prunepath.structure.cost import cost_of
    from prunepath.structure.selection import everything

    if budget is None:
        model, ratio, note = shop.dense, 0.0, ""
        structure = shop.path.structure
        cost = cost_of(structure, everything(structure), shop.options.sequence_length)
    else:
        made = shop.make(budget)
        model, ratio, cost = made.model, made.allocation.ratio, made.allocation.cost
        rule = made.allocation.options.rule
        note = ("" if rule == "order" else f"rule {rule}, ") + f"refit {made.refit['kind']}"
    timing = measured_speed(model, shop.task, window) if speed else None
    found = shop.task.evaluate(model, samples, progress=progress)
    return SizeRow(
        name=name,
        ratio=ratio,
        params=cost.params,
        macs=cost.macs,
        weight_bytes=cost.weight_bytes,
        kv_bytes_per_token=cost.kv_bytes_per_token,
        quality=found.value,
        metric=found.name,
        higher_is_better=found.higher_is_better,
        prefill_tokens_per_second=getattr(timing, "prefill_tokens_per_second", None),
        decode_tokens_per_second=getattr(timing, "decode_tokens_per_second", None),
        samples_per_second=getattr(timing, "samples_per_second", None),
        note=note,
    )


def _request(*parts: str) -> str:
    """A short name for what the rows of a file were measured with."""
    import hashlib

    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]
