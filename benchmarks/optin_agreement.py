"""How well OPTIN's estimates agree with removing units one by one, and what they cost.

    python -m benchmarks optin [--models minilm,vit,smollm2] [--probes 8,24,48] [--seeds 1]
                               [--units 30] [--every 1] [--near 800] [--shares 0.005]

A random sample of the units of every place is removed and measured exactly, once; the estimates of
every number of probes are compared with that. Work is counted in processor seconds of the dense
forward pass over the same samples, so that other programs do not count. `within` is the mean over
groups.

`picks` is the share of units that a way of scoring keeps among those exact scores keep at 60% of
the MACs of the finest units: estimates alone, and mode `hybrid` with each `exact_share`. Only units
near the cut can be decided otherwise, so further units are measured exactly there: `--near` of
those whose first estimate of damage per parameter is within a factor of 1.5 of that at the cut
(hardly any is off by as much), each standing for several; all others count as kept, or left out,
by both.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import MODELS
from benchmarks.protocol import OUT, Rows, opened, text

FloatArray = NDArray[np.float64]
NAMES = ("minilm", "vit", "smollm2")
SAMPLES, WINDOW, CUT = 32, 32, 0.6
BAND = float(np.log(1.5))


def main(arguments: list[str]) -> None:
    """Measure everything that has no row yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks optin", description=__doc__)
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--probes", default="8,24,48")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of the probes")
    parser.add_argument("--units", type=int, default=30, help="units of every group")
    parser.add_argument("--every", type=int, default=1, help="only every so many layers")
    parser.add_argument("--near", type=int, default=800, help="units near the cut; 0: no picks")
    parser.add_argument("--shares", default="0.005", help="exact shares of hybrid mode")
    options = parser.parse_args(arguments)
    shares = [float(share) for share in options.shares.split(",")]
    rows = Rows("optin")
    for name in options.models.split(","):
        if name not in NAMES:
            raise SystemExit(f"unknown model '{name}'; use one of {', '.join(NAMES)}")
        keys = [
            {
                "model": name,
                "probes": int(probes),
                "seed": seed,
                "units": options.units,
                "near": options.near,
            }
            for probes in options.probes.split(",")
            for seed in range(options.seeds)
        ]
        missing = [key for key in keys if not rows.has(every=options.every, **key)]
        if missing:
            agreement = _Agreement(name, options.units, options.every, options.near)
            for key in missing:
                for row in agreement.measured(key["probes"], key["seed"], shares):
                    rows.add({**key, "every": options.every, **row})


class _Agreement:
    """One model with exact scores of a sample of its units."""

    def __init__(self, name: str, units: int, every: int, near: int) -> None:
        self._context = search_context(name, SAMPLES)
        structure = self._context.structure
        random = np.random.default_rng(0)
        self._wanted = {
            group.name: np.sort(
                random.choice(group.num_units, min(units, group.num_units), replace=False)
            )
            for group in structure.groups
            if group.layer % every == 0
        }
        self._forward = self._forward_seconds()
        folder = OUT / f"optin-{name}-{units}-{every}"
        self._exact = self._measured_exactly(folder, self._wanted)
        self._near, self._near_folder = near, OUT / f"optin-{name}-near-{near}-{every}"

    def measured(self, probes: int, seed: int, shares: Sequence[float]) -> list[dict[str, Any]]:
        """Rows of one number of probes: of every kind of units, and picks of every share."""
        from dataclasses import replace

        from prunepath.methods.optin.gauss_newton import gauss_newton_scores
        from prunepath.methods.optin.hybrid import refined
        from prunepath.structure.gates import frozen

        scene = self._scene(probes)
        start = time.process_time()
        with frozen(self._context.model):
            scores = gauss_newton_scores(_seeded(scene, seed))
        cost = {
            "forwards": (time.process_time() - start) / self._forward,
            "backward_passes": scores.facts["backward_passes"],
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        rows = []
        for kind in self._context.structure.kinds:
            for term, place in (("md", 0), ("kd", 1)):
                table = scores.md if term == "md" else scores.kd
                pairs = [
                    (_total(table[group.name][self._wanted[group.name]]),
                     _total(self._exact[group.name][place]))
                    for group in self._context.structure.of_kind(kind)
                    if group.name in self._wanted
                ]  # fmt: skip
                rows.append({"kind": kind, "term": term, **_agreement(pairs), **cost})
        for share in shares if self._near else ():
            config = replace(scene.config, exact_share=share)
            start = time.process_time()
            with frozen(self._context.model):
                both = refined(_seeded(replace(scene, config=config), seed), scores)
            more = (time.process_time() - start) / self._forward
            picks = {"exact_share": share, "forwards_hybrid": cost["forwards"] + more}
            picks |= self._picks(scene, scores, both)
            rows.append({"kind": "all", "term": "picks", **picks, **cost})
        return rows

    def _picks(self, scene: Any, estimated: Any, hybrid: Any) -> dict[str, float]:
        """Both ways' picks: all units, those near the cut that were not measured left out and
        stood for by those that were."""
        from prunepath.structure.cost import unit_cost

        groups = [g for g in self._context.structure.finest_groups if g.name in self._wanted]
        chosen, band = self._near_units(scene, estimated)
        exact = self._measured_exactly(self._near_folder, chosen)
        scales = [
            _ratio([(scores.md[n][u], scores.kd[n][u]) for n, u in self._wanted.items()])
            for scores in (estimated, hybrid)
        ]
        true_scale = _ratio([self._exact[name] for name in self._wanted])
        many = sum(map(np.sum, band.values())) / sum(map(len, chosen.values()))
        columns: list[list[FloatArray]] = [[], [], [], [], []]
        for group in groups:
            cost = unit_cost(self._context.structure, group, scene.longest)
            ways = [
                _damage(scores.md[group.name], scores.kd[group.name], scale)
                for scores, scale in zip((estimated, hybrid), scales, strict=True)
            ]
            true, weight = ways[0].copy(), np.where(band[group.name], 0.0, 1.0)
            here = chosen[group.name]
            true[here], weight[here] = _damage(*exact[group.name], true_scale), many
            for column, values in zip(
                columns, (*ways, true, np.full(len(true), cost.macs), weight), strict=True
            ):
                column.append(values / cost.params if column is not columns[4] else values)
        first, second, true, macs, weight = map(np.concatenate, columns)
        kept = [_kept(values, macs * weight) for values in (first, second, true)]
        right = float(weight[kept[2]].sum())
        shares = [float(weight[own & kept[2]].sum()) / right for own in kept[:2]]
        return {
            "picks": shares[0],
            "hybrid": shares[1],
            "measured_near": float(sum(map(len, chosen.values()))),
            "in_band": float(sum(map(np.sum, band.values()))),
            "exact_units": float(sum(int(known.sum()) for known in hybrid.exact.values())),
        }

    def _near_units(
        self, scene: Any, estimated: Any
    ) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.bool_]]]:
        """Group -> units to measure near the cut, and which units those stand for; drawn once."""
        from prunepath.methods.optin.hybrid import distance_to_cut

        groups = self._context.structure.finest_groups
        file = self._near_folder.with_suffix(".band.npz")
        if not file.exists():
            distance = distance_to_cut(scene, estimated)
            parts = np.split(distance <= BAND, np.cumsum([g.num_units for g in groups])[:-1])
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **{g.name: part for g, part in zip(groups, parts, strict=True)})
        with np.load(file) as kept:
            band = {g.name: kept[g.name] for g in groups if g.name in self._wanted}
        all_near = [(name, int(u)) for name, near in band.items() for u in np.flatnonzero(near)]
        size = min(self._near, len(all_near))
        drawn = np.random.default_rng(0).choice(len(all_near), size, replace=False)
        chosen: dict[str, list[int]] = {name: [] for name in band}
        for index in sorted(drawn):
            name, unit = all_near[index]
            chosen[name].append(unit)
        return {name: np.array(units, dtype=np.int64) for name, units in chosen.items()}, band

    def _measured_exactly(
        self, folder: Path, wanted: Mapping[str, NDArray[np.int64]]
    ) -> dict[str, tuple[FloatArray, FloatArray]]:
        from dataclasses import replace

        from prunepath.methods.optin.exact import measure

        file = folder.with_suffix(".npz")
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            scene = self._scene(1)
            context = replace(scene.context, state_folder=folder)
            found = measure(replace(scene, context=context), wanted, "exact")
            flat = {f"{n}|{i}": v[i] for n, v in found.items() for i in (0, 1)}
            np.savez(file, **flat)  # type: ignore[arg-type]
        empty = (np.zeros((0, 1)), np.zeros(0))
        with np.load(file) as kept:
            return {
                name: (kept[f"{name}|0"], kept[f"{name}|1"]) if f"{name}|0" in kept else empty
                for name in wanted
            }

    def _scene(self, probes: int) -> Any:
        from prunepath.methods.optin.config import OptinConfig
        from prunepath.methods.optin.scene import Scene
        from prunepath.structure.gates import frozen

        with frozen(self._context.model):
            return Scene.of(self._context, OptinConfig(probes=probes, samples=SAMPLES))

    def _forward_seconds(self) -> float:
        import torch

        context = self._context
        taken = []
        with torch.no_grad():
            for _ in range(3):
                start = time.process_time()
                context.task.output(context.model, context.samples.inputs)
                taken.append(time.process_time() - start)
        return min(taken)


def search_context(name: str, count: int) -> Any:
    """A real model with calibration samples, as a method is given them; no statistics.

    Args:
        name: short name of the model.
        count: samples.
    """
    from prunepath.api.discovery import discover_for
    from prunepath.checkpoint.source import open_model
    from prunepath.data.windows import token_windows
    from prunepath.methods.method import SearchContext
    from prunepath.statistics.sums import Statistics
    from prunepath.tasks.task import DataRequest

    if name in MODELS:
        real = MODELS[name]
        found = open_model(real.folder(), task=real.task, dtype="float32")
        request = DataRequest(count=count)
        samples = found.task.samples(found, real.data(real.calibration), request)
    else:
        found = opened()
        samples = token_windows(text("valid"), found.tokenizer, window=WINDOW, count=count)
    found.model.eval()
    return SearchContext(
        model=found.model,
        structure=discover_for(found.model, found.task, proven=False),
        statistics=Statistics(),
        task=found.task,
        samples=samples,
    )


def _seeded(scene: Any, seed: int) -> Any:
    """The same samples and rows with other probes."""
    from dataclasses import replace

    return replace(scene, context=replace(scene.context, seed=seed))


def _total(table: FloatArray) -> FloatArray:
    return table.sum(axis=1) if table.ndim == 2 else table


def _agreement(pairs: list[tuple[FloatArray, FloatArray]]) -> dict[str, float | None]:
    own, true = (np.concatenate(values) for values in zip(*pairs, strict=True))
    within = [_spearman(*pair) for pair in pairs if len(pair[0]) > 1]  # a sub-layer is alone
    ratio = own[true > 0] / true[true > 0]
    return {
        "units_compared": float(len(own)),
        "spearman": _spearman(own, true),
        "within": float(np.mean(within)) if within else None,
        "ratio_median": float(np.median(ratio)),
        "ratio_10": float(np.quantile(ratio, 0.1)),
        "ratio_90": float(np.quantile(ratio, 0.9)),
    }


def _spearman(one: FloatArray, other: FloatArray) -> float:
    import torch

    from prunepath.tasks.scores import spearman

    return spearman(torch.from_numpy(one), torch.from_numpy(other)) / 100


def _damage(md: FloatArray, kd: FloatArray, scale: float) -> FloatArray:
    return _total(md) + 0.1 * scale * kd


def _ratio(pairs: Sequence[tuple[FloatArray, FloatArray]]) -> float:
    md = np.concatenate([_total(table) for table, _ in pairs])
    kd = np.concatenate([values for _, values in pairs])
    both = (md > 0) & (kd > 0)
    return float(np.median(md[both]) / np.median(kd[both]))


def _kept(density: FloatArray, macs: FloatArray) -> NDArray[np.bool_]:
    order = np.argsort(-density, kind="stable")
    kept = np.zeros(len(density), dtype=np.bool_)
    kept[order[np.cumsum(macs[order]) <= CUT * macs.sum()]] = True
    return kept
