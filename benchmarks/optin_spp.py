"""Where OPTIN and SPP disagree: two orders of the same model, found on the same samples.

    python -m benchmarks optin_spp [--models minilm,vit]

Rank correlations of both orders by kind and layer, the share of units each keeps in every layer at
60% of the MACs, and the quality of their cuts at three budgets. Units are the library's own
(channels and coordinates); heads are compared, too. Ends by writing docs/optin-and-spp.md.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks import render_optin_spp
from benchmarks.ground import Ground, search_counts
from benchmarks.models import MODELS
from benchmarks.protocol import Rows

NAMES = ("minilm", "vit")
METHODS = ("optin", "spp")
BUDGETS = ("80%", "60%", "40%")
REFITS = ("none", "sequential")
LOOKED_AT = "60%"


def main(arguments: list[str]) -> None:
    """Measure everything that has no row yet, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks optin_spp", description=__doc__)
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--tiny", action="store_true", help="few samples, to try it out")
    options = parser.parse_args(arguments)
    rows = Rows("optin_spp", tiny=options.tiny)
    for name in options.models.split(","):
        if name not in NAMES:
            raise SystemExit(f"unknown model '{name}'; use one of {', '.join(NAMES)}")
        _model(rows, name, options.tiny)
    render_optin_spp.write(rows.rows, tiny=options.tiny)


def _model(rows: Rows, name: str, tiny: bool) -> None:
    title = MODELS[name].title
    counts = search_counts(name, tiny=tiny)
    wanted = [
        {"model": title, "what": "quality", "method": method, "macs": budget, "refit": refit}
        | {"counts": counts}
        for refit in REFITS
        for budget in BUDGETS
        for method in METHODS
    ]
    orders = {"model": title, "what": "orders", "counts": counts}
    dense = {"model": title, "what": "dense"}
    if all(rows.has(**key) for key in (*wanted, orders, dense)):
        return
    ground = Ground(name, tiny=tiny)
    paths = ground.paths(0, METHODS)
    if not rows.has(**orders):
        kept = {each: ground.kept(paths[each], LOOKED_AT) for each in METHODS}
        rows.add({**orders, **correlations(paths), "kept": kept})
    if not rows.has(**dense):
        rows.add({**dense, **ground.quality(ground.dense.opened.model)})
    for key in wanted:
        if not rows.has(**key):
            path = paths[key["method"]]
            rows.add({**key, **ground.made(path, key["macs"], refit=key["refit"])})


def correlations(paths: dict[str, Any]) -> dict[str, Any]:
    """Spearman's correlation of two total orders.

    Args:
        paths: `optin` and `spp` of one model.

    Returns:
        `kinds`: kind -> over all its units; `layers`: kind -> within every layer; `depth`: kind ->
        of the mean ranks of the layers.
    """
    structure = paths["optin"].structure
    found: dict[str, Any] = {"kinds": {}, "layers": {}, "depth": {}}
    for kind in structure.kinds:
        groups = structure.of_kind(kind)
        ranks = [[paths[each].rank[group.name] for group in groups] for each in METHODS]
        whole, means = (
            [join(each) for each in ranks]
            for join in (np.concatenate, lambda each: np.array([one.mean() for one in each]))
        )
        found["kinds"][kind] = _spearman(*whole)
        found["depth"][kind] = _spearman(*means)
        if all(group.num_units > 1 for group in groups):
            found["layers"][kind] = [_spearman(*pair) for pair in zip(*ranks, strict=True)]
    return found


def _spearman(one: Any, other: Any) -> float:
    import torch

    from prunepath.tasks.scores import spearman

    return spearman(torch.from_numpy(one), torch.from_numpy(other)) / 100
