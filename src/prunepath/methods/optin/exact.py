"""Exact scores: remove every unit, alone, and look at the features behind it and at the answer.

The definition (OPTIN, Algorithm 1), with what is the same for all candidates computed once:
the dense rows, everything in front of a gate, and one pass for as many candidates as fit
(`folding.py`). Scores do not depend on the order of candidates: nothing a candidate leaves behind
reaches the next. Layer by layer what is finished is saved, and a run that is interrupted goes on.

Before it is relied on, folding is compared with plain gates on the model at hand, once for each
series of groups. Where they differ, that series is scored one candidate a pass, and said so.

Shapes: C candidates, K rows, d width, Z features, w positions at a gate, U units of a group.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunepath.errors import NumericsError, RequestError
from prunepath.methods.method import FloatArray
from prunepath.methods.optin.features import reading
from prunepath.methods.optin.folding import (
    Key,
    Prefix,
    block_of,
    gate_axis,
    masked,
    prefix_of,
    recorded,
    replaying,
)
from prunepath.methods.optin.rows import manifold_distance
from prunepath.methods.optin.scene import Part, Scene, repeated
from prunepath.methods.optin.scores import TrajectoryScores
from prunepath.methods.run_state import RunState
from prunepath.progress import note, track
from prunepath.structure.gates import frozen, owner_index
from prunepath.structure.units import GateSite, UnitGroup

__all__ = ["Measured", "exact_scores", "measure"]

Units = NDArray[np.int64]
Measured = tuple[FloatArray, FloatArray]
"""Of some units of one group: L_MD at every feature (units, Z), and the answer's distance."""

_ALLOWED = {torch.float32: 1e-4, torch.float64: 1e-8}
_ALLOWED_ROUNDED = 5e-2  # bfloat16 and float16 round every activation
_FEW = 2**22
"""Answers up to so many numbers are compared in float64: a divergence of 1e-6 nats is the small
difference of terms near 1, and few rows do not average the rounding away."""
_MEASURED_WITH = ("tokens", "samples", "horizon")


def exact_scores(scene: Scene) -> TrajectoryScores:
    """Scores of all units, each removed by itself.

    Args:
        scene: samples, features and rows.

    Raises:
        NumericsError: an answer or feature without one unit is not finite.
        RequestError: not even one candidate fits into memory.
    """
    groups = scene.context.structure.groups
    wanted = {group.name: np.arange(group.num_units) for group in groups}
    found = measure(scene, wanted, "optin-exact")
    return TrajectoryScores(
        features=tuple(site.name for site in scene.trajectory.sites),
        first=dict(scene.trajectory.first),
        md={name: found[name][0] for name in wanted},
        kd={name: found[name][1] for name in wanted},
        exact={name: np.ones(len(units), dtype=np.bool_) for name, units in wanted.items()},
        facts={"samples": len(scene.samples), "horizon": scene.config.horizon},
    )


def measure(scene: Scene, wanted: Mapping[str, Units], name: str) -> dict[str, Measured]:
    """Remove some units, each by itself.

    Args:
        scene: samples, features and rows.
        wanted: group -> its units, in any order.
        name: what the state of this run is called, to resume from.

    Returns:
        group -> (L_MD (units, Z), answer's distance (units,)), units in the order asked for.
    """
    context, config = scene.context, scene.config
    settings = {key: getattr(config, key) for key in _MEASURED_WITH}
    asked = {group: np.asarray(units).tolist() for group, units in wanted.items()}
    settings["rows_at_once"] = scene.rows_at_once
    store = RunState(context, name, {**settings, "wanted": asked})
    done = _load(store)
    layers: dict[str, list[UnitGroup]] = {}
    for group in context.structure.groups:
        layer = context.structure.places_by_path[group.place].layer_path
        if len(wanted.get(group.name, ())):
            layers.setdefault(layer, []).append(group)
    todo = sum(len(wanted[g.name]) for gs in layers.values() for g in gs if g.name not in done)
    bar = iter(track(context.progress, range(todo), "removing units", todo))
    with frozen(context.model), torch.no_grad():
        folder = _Folder(scene)
        for groups in layers.values():
            if all(group.name in done for group in groups):
                continue
            done.update(folder.layer(groups, wanted, bar))
            _save(store, done)
    return done


@dataclass(frozen=True, eq=False)
class _Site:
    """A gate with all groups that sit there, and how its candidates are run."""

    gate: GateSite
    groups: list[UnitGroup]
    prefix: Prefix
    axis: int | None  # None: one candidate a pass
    features: list[int]

    def masks(self, candidates: Sequence[tuple[UnitGroup, int]]) -> Tensor:
        """(C, w): 0 where a candidate's unit sits."""
        owners = {group.name: owner_index(group) for group in self.groups}
        rows = [owners[group.name] != unit for group, unit in candidates]
        return torch.stack(rows).to(torch.float32)


class _Folder:
    """Runs candidates; keeps what it learns about memory and about which series fold."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._at_once = scene.candidates_at_once
        self._folds: dict[tuple[str, ...], bool] = {}
        self._known: tuple[_Site, list[dict[Key, Any]]] | None = None

    def layer(
        self, groups: Sequence[UnitGroup], wanted: Mapping[str, Units], bar: Iterator[int]
    ) -> dict[str, Measured]:
        """All wanted units of the groups of one layer."""
        sites = self._sites(groups)
        kept = self._dense(sites)
        found: dict[str, list[Measured]] = {group.name: [] for group in groups}
        for site in sites:
            todo = [(group, int(u)) for group in site.groups for u in wanted[group.name]]
            for candidates, md, kd in self._blocks(site, kept, todo):
                for row, (group, _) in enumerate(candidates):
                    found[group.name].append((md[row], kd[row]))
                for _ in itertools.islice(bar, len(candidates)):
                    pass
        return {
            name: (np.stack([md for md, _ in rows]), np.array([float(kd) for _, kd in rows]))
            for name, rows in found.items()
        }

    def _dense(self, sites: Sequence[_Site]) -> list[dict[Key, Any]]:
        """Part by part, what the dense model's modules in front of some gates return."""
        keys = {key for site in sites for key in site.prefix.calls}
        before, self._known = self._known, None
        if before is not None and self._start(before[0]) > min(map(self._start, sites)):
            before = None  # not a layer behind that one: another tower, or layers in another order
        kept = []
        for number, part in enumerate(self._scene.parts):
            run = partial(self._run, part.samples.to(self._scene.device))
            known = None if before is None else (before[0].prefix, before[1][number])
            kept.append(recorded(self._scene.context.model, keys, run, known))
        self._known = (max(sites, key=self._start), kept)  # the next layer's pass begins here
        return kept

    def _start(self, site: _Site) -> int:
        """Where on the tape a site's gate acts first."""
        return self._scene.trajectory.start[site.groups[0].name]

    def _sites(self, groups: Sequence[UnitGroup]) -> list[_Site]:
        scene = self._scene
        trajectory, model = scene.trajectory, scene.context.model
        by_key: dict[Any, list[UnitGroup]] = {}
        for group in groups:
            by_key.setdefault(group.gate.key, []).append(group)
        sites = []
        for here in by_key.values():
            gate, first = here[0].gate, trajectory.first[here[0].name]
            end = len(trajectory.sites)
            if scene.config.horizon:
                end = min(end, first + scene.config.horizon)
            prefix = prefix_of(scene.once, scene.twice, trajectory.start[here[0].name])
            routed = scene.context.structure.places_by_path[here[0].place].routed
            axis = None if routed else gate_axis(model, scene.once, scene.twice, gate)
            site = _Site(gate, here, prefix, axis, list(range(first, end)))
            series = tuple(group.series for group in here)
            if series not in self._folds:
                self._folds[series] = self._agrees(site)
            if not self._folds[series]:
                site = _Site(gate, here, Prefix({}, {}), None, site.features)
            sites.append(site)
        return sites

    def _blocks(
        self, site: _Site, kept: Sequence[Any], todo: list[tuple[UnitGroup, int]]
    ) -> Iterator[tuple[list[tuple[UnitGroup, int]], FloatArray, FloatArray]]:
        start = 0
        while start < len(todo):
            count = 1 if site.axis is None else self._at_once
            candidates = todo[start : start + count]
            try:
                md, kd = self._scores(site, kept, site.masks(candidates))
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                self._halve(len(candidates))
                continue
            _require_finite(candidates, md, kd)
            yield candidates, md, kd
            start += len(candidates)

    def _halve(self, count: int) -> None:
        if count == 1:
            raise RequestError(
                "one pass without a unit needs more memory than there is; score fewer samples at "
                "once (--set candidates_tokens=...), fewer samples (--set samples=...), or "
                "shorter ones (--window)"
            ) from None
        self._at_once = max(1, count // 2)
        note(
            self._scene.context.progress,
            f"{count} candidates in one pass do not fit into memory; going on with {self._at_once}",
        )
        if self._scene.device.type == "cuda":
            torch.cuda.empty_cache()

    def _scores(
        self, site: _Site, kept: Sequence[Any], masks_Cw: Tensor
    ) -> tuple[FloatArray, FloatArray]:
        """L_MD (C, Z) and the answer's distance (C,) of some candidates."""
        scene, count = self._scene, len(masks_Cw)
        rows: list[list[Tensor]] = [[] for _ in site.features]
        answers: list[list[Tensor]] = [[] for _ in range(count)]
        kd = np.zeros(count)
        for part, outputs in zip(scene.parts, kept, strict=True):
            found: list[list[Tensor]] = [[] for _ in site.features]
            done = 0
            for masks in torch.split(masks_Cw, min(scene.folds(part), self._at_once)):
                folded = len(masks)

                def take(place: int, feature: Tensor, part: Part = part, n: int = folded) -> Tensor:
                    return part.rows.folded(site.features[place], feature, n)

                inputs = repeated(part.samples.to(scene.device), folded)
                answer, features = self._masked_run(site, outputs, masks, inputs, take)
                for own, feature in zip(found, features, strict=True):
                    own.append(feature)
                for row in range(folded):
                    own_answer = block_of(answer, part.answer, row)
                    if scene.whole is not None:
                        answers[done + row].append(own_answer)
                    elif scene.share(part):  # a part may have no row that counts, and no mean
                        kd[done + row] += scene.share(part) * self._distance(own_answer, part)
                done += folded
            for kept_rows, own in zip(rows, found, strict=True):
                kept_rows.append(torch.cat(own))
        md = np.zeros((count, len(scene.trajectory.sites)))
        for place, parts in zip(site.features, rows, strict=True):
            distance = manifold_distance(torch.cat(parts, dim=1), scene.teachers[place])
            md[:, place] = distance.double().cpu().numpy()
        if scene.whole is not None:
            kd = np.array([self._distance(torch.cat(own), scene.whole) for own in answers])
        # Rounding leaves divergences of nothing a hair below zero.
        return md, np.maximum(kd, 0.0) if np.isfinite(kd).all() else kd

    def _distance(self, answer: Tensor, part: Part) -> float:
        """How far an answer is from the dense one, mean per loss row."""
        dense = part.answer
        if answer.numel() <= _FEW:
            answer, dense = answer.double(), dense.double()
        return float(self._scene.context.task.distance(answer, dense, part.samples))

    def _masked_run(
        self,
        site: _Site,
        outputs: Mapping[Any, Any],
        masks_Cw: Tensor,
        inputs: Mapping[str, Tensor],
        take: Any,
    ) -> tuple[Tensor, list[Tensor]]:
        model = self._scene.context.model
        sites = [self._scene.trajectory.sites[place] for place in site.features]
        with ExitStack() as stack:
            stack.enter_context(replaying(model, site.prefix, outputs, len(masks_Cw)))
            stack.enter_context(masked(model, site.gate, masks_Cw, site.axis))
            features = stack.enter_context(reading(model, sites, take, site.prefix.skipped))
            answer = self._run(inputs)
        return answer, features

    def _run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self._scene.context.task.output(self._scene.context.model, inputs)

    def _agrees(self, site: _Site) -> bool:
        """Whether folding and replaying answer as plain gates do, on two samples at most."""
        scene = self._scene
        few = scene.samples.rows(0, min(2, len(scene.samples)))
        inputs = few.to(scene.device)
        width = site.gate.layout.size
        masks = torch.ones(2, width)
        masks[0, ::2] = 0
        plain = _Site(site.gate, site.groups, Prefix({}, {}), None, site.features)
        expected = [
            self._masked_run(plain, {}, mask[None], inputs, None) for mask in masks
        ]  # answer and features, gated and dense
        outputs = recorded(scene.context.model, site.prefix.calls, partial(self._run, inputs))
        try:
            if site.axis is None:
                found = [
                    self._masked_run(site, outputs, mask[None], inputs, None) for mask in masks
                ]
            else:
                answer, features = self._masked_run(site, outputs, masks, repeated(inputs, 2), None)
                found = [
                    (
                        block_of(answer, expected[0][0], index),
                        [
                            block_of(own, dense, index)
                            for own, dense in zip(features, expected[0][1], strict=True)
                        ],
                    )
                    for index in range(2)
                ]
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
            return self._told(site, f"it fails ({error})")
        allowed = _ALLOWED.get(next(scene.context.model.parameters()).dtype, _ALLOWED_ROUNDED)
        worst = max(
            _difference(one, other)
            for left, right in zip(found, expected, strict=True)
            for one, other in zip([left[0], *left[1]], [right[0], *right[1]], strict=True)
        )
        return worst <= allowed or self._told(site, f"the answers differ by {worst:.2g}")

    def _told(self, site: _Site, why: str) -> bool:
        note(
            self._scene.context.progress,
            f"'{site.groups[0].name}' and groups like it are scored one candidate a pass, because "
            f"several in one pass do not answer as they do alone: {why}",
        )
        return False


def _difference(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    if not one.numel():
        return 0.0
    worst = float((one - other).abs().max()) / max(1.0, float(other.abs().max()))
    return worst if np.isfinite(worst) else float("inf")


def _out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or "out of memory" in words
        or "can't allocate memory" in words
    )


def _require_finite(
    candidates: Sequence[tuple[UnitGroup, int]], md: FloatArray, kd: FloatArray
) -> None:
    bad = ~(np.isfinite(md).all(axis=1) & np.isfinite(kd))
    if bad.any():
        group, unit = candidates[int(bad.argmax())]
        raise NumericsError(
            f"without unit {unit} of '{group.name}' the model's features or answer are not finite; "
            "check its weights, or load it in float32 or bfloat16 instead of float16"
        )


def _save(store: RunState, done: Mapping[str, Measured]) -> None:
    tensors = {}
    for name, (md, kd) in done.items():
        tensors[f"md/{name}"] = torch.from_numpy(md)
        tensors[f"kd/{name}"] = torch.from_numpy(kd)
    store.save(tensors, {"groups": list(done)})


def _load(store: RunState) -> dict[str, Measured]:
    found = store.load()
    if found is None:
        return {}
    tensors, facts = found
    return {
        name: (tensors[f"md/{name}"].numpy(), tensors[f"kd/{name}"].numpy())
        for name in facts["groups"]
    }
