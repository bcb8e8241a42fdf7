"""OPTIN and the diagonal Fisher at 60% of the MACs, with and without what Kwon et al. add to it.

    python -m benchmarks optin_quality [--models minilm,vit] [--seeds N]

Nothing is trained. `paper` cuts whole heads and FFN channels, of any number, as both papers do;
`default` is what the library cuts unless told otherwise. Both methods see the same samples without
labels; OPTIN scores the first 32 of them in mode hybrid. Refit `scales` is Kwon's tuning, and
`rearranged` his exchange of units. Rows that are compared closest are measured for several seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.ground import Ground, search_counts
from benchmarks.models import MODELS
from benchmarks.protocol import Rows

SEEDS = {"minilm": 5, "vit": 3}
METHODS = ("optin", "fisher")
REFITS = ("none", "scales", "sequential")
BUDGET = "60%"
CUTS: dict[str, dict[str, Any]] = {
    "paper": {"kinds": ("head", "ffn_channel"), "multiple": 1, "floor": 1},
    "default": {"multiple": 8, "floor": 8},
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to use a path.

    Args:
        method: whose path.
        cut: a key of `CUTS`.
        refit, rule, rearrange, token_share: see `prunepath.extract`.
        scored: whether measured damages say where tokens merge; else they are spread evenly.
    """

    method: str
    cut: str = "paper"
    refit: str = "none"
    rule: str = "order"
    rearrange: bool = False
    token_share: float = 0.0
    scored: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Of a workshop."""
        names = ("refit", "rule", "rearrange", "token_share")
        own: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.scored:
            own["token_schedule"] = "scored"
        return {"layout": "per-layer", **CUTS[self.cut], **own}


def main(arguments: list[str]) -> None:
    """Measure everything that has no row yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks optin_quality", description=__doc__)
    parser.add_argument("--models", default=",".join(SEEDS))
    parser.add_argument("--seeds", type=int, help="how many; by default 5 for minilm, 3 for vit")
    parser.add_argument("--tiny", action="store_true", help="few samples, to try it out")
    options = parser.parse_args(arguments)
    for name in options.models.split(","):
        if name not in SEEDS:
            raise SystemExit(f"unknown model '{name}'; use one of {', '.join(SEEDS)}")
        _model(
            Rows("optin_quality", tiny=options.tiny),
            name,
            options.seeds or SEEDS[name],
            options.tiny,
        )


def variants(name: str, seed: int) -> Iterator[Variant]:
    """What is measured of a seed: all of it for the first, the closest comparison for the others.

    Args:
        name: short name of the model.
        seed: which.
    """
    for method in METHODS:
        yield Variant(method=method)
        yield Variant(method=method, refit="sequential")
    if seed:
        return
    for method in METHODS:
        yield Variant(method=method, refit="scales")
        yield Variant(method=method, rearrange=True)
        yield Variant(method=method, rearrange=True, refit="scales")
        yield Variant(method=method, rule="knapsack")
        yield Variant(method=method, cut="default")
        yield Variant(method=method, cut="default", refit="sequential")
    if MODELS[name].tokens is None:  # images, whose patches merge
        for share in (0.5, 0.75):
            yield Variant(method="optin", token_share=share)
        yield Variant(method="optin", token_share=0.75, refit="sequential")
        yield Variant(method="optin", token_share=0.75, scored=True)


def _model(rows: Rows, name: str, seeds: int, tiny: bool) -> None:
    title = MODELS[name].title
    key = {"model": title, "counts": search_counts(name, tiny=tiny)}
    ground = None
    for seed in range(seeds):
        missing = [
            each for each in variants(name, seed) if not rows.has(seed=seed, **key, **asdict(each))
        ]
        if not missing:
            continue
        ground = ground or Ground(name, tiny=tiny)
        if not rows.has(model=title, method="dense"):
            dense = ground.quality(ground.dense.opened.model)
            rows.add({"model": title, "method": "dense", **dense})
        paths = ground.paths(seed, METHODS)
        for each in missing:
            found = ground.made(paths[each.method], BUDGET, **each.options)
            rows.add({**key, "seed": seed, **asdict(each), **found})
