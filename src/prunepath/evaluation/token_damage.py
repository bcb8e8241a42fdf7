"""What merging tokens in one block does to a model, block by block: scores for a token schedule.

Every block merges alone, with the operator that runs later, and the model behind it is compared
with the dense one as OPTIN compares removals of units:

    I(l, r) = mean over features z behind l of L_MD(F'_z, F_z)  +  lambda L_KD(y', y),

F' being the features with r tokens merged in block l. OPTIN (arXiv 2403.17921) scores a token by
dropping it on the way into a block, with relations averaged over positions because the number of
rows changes. Here merged tokens are given back to the patches they stand for before rows are
compared, so the distance is that of units, and what is scored is what will run. The released code
multiplies scores by a factor that rises from 1 to 100 over depth, because a sum over features falls
with the layers behind a block; a mean needs none. lambda is that of units: `lambda_kd` times the
ratio of both terms' medians.

The best links merge first, so the damage of r tokens is far from r times that of one. It is
measured at an eighth, a quarter, half and all of what a block can merge; in between it is taken to
be a power of r, as it nearly is.

Shapes: L blocks, M tokens a block can merge, Z features, K rows, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunepath.methods.optin.config import OptinConfig
from prunepath.methods.optin.features import reading
from prunepath.methods.optin.rows import manifold_distance
from prunepath.methods.optin.scene import Part, Scene
from prunepath.progress import track
from prunepath.structure.families.portable import family_from_dict
from prunepath.structure.gates import frozen
from prunepath.structure.merging import find_merging
from prunepath.structure.tokens import TokenSchedule, TokenSite, mergeable
from prunepath.surgery.merging import merged_so_far, merging
from prunepath.surgery.tokens import Merged

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.progress import Progress
    from prunepath.structure.families import Family
    from prunepath.structure.units import Structure
    from prunepath.tasks.task import Task

__all__ = ["token_damage"]

FloatArray = NDArray[np.float64]
_SHARES = (0.125, 0.25, 0.5, 1.0)
_PER_TOKEN = OptinConfig(md_norm="mean")


def token_damage(
    model: nn.Module,
    structure: Structure,
    task: Task,
    samples: Samples,
    site: TokenSite,
    *,
    seed: int = 0,
    config: OptinConfig | None = None,
    progress: Progress | None = None,
) -> FloatArray:
    """Damage of the first, second, ... token that merges in every block, each block alone.

    Args:
        model: the dense model; its layers are the same afterwards.
        structure: its structure.
        task: what it is used for.
        samples: calibration samples; the first `config.samples` are run.
        site: where tokens merge.
        seed: of the rows that are compared.
        config: `samples`, `tokens`, `lambda_kd` and `md_norm` are read; by default those of a
            search, with the norm `mean`.
        progress: who listens.

    Returns:
        (L, M), at least 0, for `allocation.tokens.schedule_from_scores`.

    Example:
        >>> scores = token_damage(model, structure, task, samples, site)  # doctest: +SKIP
    """
    from prunepath.methods.method import SearchContext
    from prunepath.statistics.sums import Statistics

    config = config or _PER_TOKEN
    context = SearchContext(
        model=model,
        structure=structure,
        statistics=Statistics(),
        task=task,
        samples=samples,
        seed=seed,
    )
    most = mergeable(site.tokens, site.protected)
    counts = sorted({round(share * most) for share in _SHARES} - {0})
    places = [(block, count) for block in range(site.num_layers) for count in counts]
    md, kd = np.zeros(len(places)), np.zeros(len(places))
    with frozen(model), torch.no_grad():
        scene = Scene.of(context, config)
        tables = [family_from_dict(table) for table in structure.tables]
        bar = track(progress, places, "merging in one block", len(places))
        for row, (block, count) in enumerate(bar):
            dropped = tuple(count if each == block else 0 for each in range(site.num_layers))
            schedule = TokenSchedule(site=site, dropped=dropped)
            md[row], kd[row] = _distances(scene, schedule, tables)
    both = (md > 0) & (kd > 0)
    scale = np.median(md[both]) / np.median(kd[both]) if both.any() else 1.0
    damage = (md + config.lambda_kd * scale * kd).reshape(site.num_layers, len(counts))
    return _by_token(damage, counts)


def _by_token(damage: FloatArray, counts: Sequence[int]) -> FloatArray:
    """What each further token adds, from the damage of some counts: linear in between."""
    # More merging that measures as less damage is noise of a few samples.
    rising = np.maximum.accumulate(damage, axis=1)
    wanted = np.arange(counts[-1] + 1)
    total = np.stack([_interpolated(wanted, np.array(counts), row) for row in rising])
    return np.diff(np.maximum.accumulate(total, axis=1), axis=1)


def _interpolated(wanted: NDArray[np.int64], counts: Any, damage: FloatArray) -> FloatArray:
    found: FloatArray = np.interp(wanted, [0, *counts], [0.0, *damage])
    found = np.interp(wanted, [0, *counts], [0.0, *damage])
    if len(counts) < 2 or damage[0] <= 0:
        return found
    log, known = np.log(np.maximum(wanted, 1)), np.log(counts)
    inside = np.exp(np.interp(log, known, np.log(damage)))
    power = max(1.0, float(np.log(damage[1] / damage[0]) / (known[1] - known[0])))
    below = damage[0] * (wanted / counts[0]) ** power
    return np.where(wanted < counts[0], below, inside)


def _distances(
    scene: Scene, schedule: TokenSchedule, tables: Sequence[Family]
) -> tuple[float, float]:
    """L_MD over the features, and the answer's distance under a schedule."""
    model, sites, task = scene.context.model, scene.trajectory.sites, scene.context.task
    rows: list[list[Tensor]] = [[] for _ in sites]
    kd, total = 0.0, 0
    for part in scene.parts:
        with (
            merging(model, schedule, tables),
            _following(model, tables) as path,
            reading(model, sites, _Taker(part, path)) as features,
        ):
            answer = task.output(model, part.samples.to(scene.device))
        for kept, feature in zip(rows, features, strict=True):
            kept.append(feature)
        weight = scene.weight(part.samples)
        dense = part.answer.double()
        kd += weight * float(task.distance(answer.double(), dense, part.samples))
        total += weight
    moved = [
        float(manifold_distance(torch.cat(own), teacher))
        for own, teacher in zip(rows, scene.teachers, strict=True)
    ]
    behind = sum(each > 0 for each in moved) if scene.config.md_norm == "mean" else 1
    return sum(moved) / max(1, behind), max(kd / total, 0.0)


@contextmanager
def _following(model: nn.Module, tables: Sequence[Family]) -> Iterator[list[Merged | None]]:
    """What has been merged on the way to the layer that runs, in a list of one."""
    path: list[Merged | None] = [None]

    def look(_: nn.Module, args: Any, kwargs: Any) -> None:
        path[0] = merged_so_far(args[0] if args else kwargs["hidden_states"])

    with ExitStack() as stack:
        for name in find_merging(model, tables).layers:
            layer = model.get_submodule(name)
            handle = layer.register_forward_pre_hook(look, with_kwargs=True)
            stack.callback(handle.remove)
        yield path


class _Taker:
    """The rows of a feature that are compared, merged tokens given back to their patches."""

    def __init__(self, part: Part, path: list[Merged | None]) -> None:
        self._part, self._path = part, path

    def __call__(self, place: int, feature: Tensor) -> Tensor:
        merged, rows = self._path[0], self._part.rows
        if merged is not None and feature.shape[-2] != rows.lengths[place]:
            feature = merged.spread(feature)
        return rows.rows(place, feature)
