"""How well OPTIN's estimates agree with removing units one by one, and what they cost.

    python -m benchmarks optin [--models minilm,vit,smollm2] [--probes 8,24,48] [--seeds 1]
                               [--units 30] [--every 1]

A random sample of the units of every place is removed and measured exactly, once; the estimates of
every number of probes are compared with that. Work is counted in processor seconds of the dense
forward pass over the same samples, so that other programs do not count. `within` is the mean over
groups, `picks` the share of units (each sampled one stands for its group) that estimates keep
among those exact scores keep at 60% of the MACs of the finest units.
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


def main(arguments: list[str]) -> None:
    """Measure everything that has no row yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks optin", description=__doc__)
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--probes", default="8,24,48")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of the probes")
    parser.add_argument("--units", type=int, default=30, help="units of every group")
    parser.add_argument("--every", type=int, default=1, help="only every so many layers")
    options = parser.parse_args(arguments)
    rows = Rows("optin")
    for name in options.models.split(","):
        if name not in NAMES:
            raise SystemExit(f"unknown model '{name}'; use one of {', '.join(NAMES)}")
        keys = [
            {"model": name, "probes": int(probes), "seed": seed, "units": options.units}
            for probes in options.probes.split(",")
            for seed in range(options.seeds)
        ]
        missing = [key for key in keys if not rows.has(every=options.every, **key)]
        if missing:
            agreement = _Agreement(name, options.units, options.every)
            for key in missing:
                for row in agreement.measured(key["probes"], key["seed"]):
                    rows.add({**key, "every": options.every, **row})


class _Agreement:
    """One model with exact scores of a sample of its units."""

    def __init__(self, name: str, units: int, every: int) -> None:
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
        self._exact = self._measured_exactly(OUT / f"optin-{name}-{units}-{every}")

    def measured(self, probes: int, seed: int) -> list[dict[str, Any]]:
        """Rows of one number of probes, one for each kind of units, and one for the picks."""
        from prunepath.methods.optin.gauss_newton import gauss_newton_scores
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
        picks = self._picks(scores.md, scores.kd, scene)
        return [*rows, {"kind": "all", "term": "picks", **picks, **cost}]

    def _picks(
        self, md: Mapping[str, FloatArray], kd: Mapping[str, FloatArray], scene: Any
    ) -> dict[str, float]:
        from prunepath.structure.cost import unit_cost

        structure = self._context.structure
        groups = [group for group in structure.finest_groups if group.name in self._wanted]
        columns: dict[str, list[FloatArray]] = {k: [] for k in ("own", "true", "macs", "many")}
        units = {group.name: self._wanted[group.name] for group in groups}
        scales = {
            "own": _ratio([(md[n][u], kd[n][u]) for n, u in units.items()]),
            "true": _ratio([self._exact[n] for n in units]),
        }
        for group in groups:
            cost, here = unit_cost(structure, group, scene.longest), units[group.name]
            own = _damage(md[group.name][here], kd[group.name][here], scales["own"])
            true = _damage(*self._exact[group.name], scales["true"])
            many = np.full(len(here), group.num_units / len(here))
            for key, values in (
                ("own", own / cost.params),
                ("true", true / cost.params),
                ("macs", many * cost.macs),
                ("many", many),
            ):
                columns[key].append(values)
        own, true, macs, many = (
            np.concatenate(columns[k]) for k in ("own", "true", "macs", "many")
        )
        kept = [_kept(values, macs) for values in (own, true)]
        both = float(many[kept[0] & kept[1]].sum() / many[kept[1]].sum())
        return {"picks": both, "sampled": float(len(own))}

    def _measured_exactly(self, folder: Path) -> dict[str, tuple[FloatArray, FloatArray]]:
        from dataclasses import replace

        from prunepath.methods.optin.exact import measure

        file = folder.with_suffix(".npz")
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            scene = self._scene(1)
            context = replace(scene.context, state_folder=folder)
            found = measure(replace(scene, context=context), self._wanted, "exact")
            flat = {f"{n}|{i}": v[i] for n, v in found.items() for i in (0, 1)}
            np.savez(file, **flat)  # type: ignore[arg-type]
        with np.load(file) as kept:
            return {name: (kept[f"{name}|0"], kept[f"{name}|1"]) for name in self._wanted}

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
