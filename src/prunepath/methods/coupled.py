"""SPP on the real loss: the coupled iteration, with the safeguards that make it finish.

One scale per group. A group's gradient is divided by the median of its diagonal Fisher, which is
the same as its own coupling nu = c / median(h) and its own clock: the median unit of every group
enters after about the same number of steps.

Stiff gates. Curvatures of one group lie a thousandfold apart, and a step below the bound
2 / (kappa (Lip + 1/nu)) would need as many times more steps. Gate j therefore settles with a
damping of its own, kappa_j = kappa / (1 + kappa alpha s (h_j + 1/10)) with its relative Fisher h_j
and s the largest eigenvalue of the loss in that metric, measured by power iteration on gradient
differences. The step bound then holds at any alpha, and where a gate settles does not change. This
is a linearly implicit step, not Adam: the metric is fixed before the run. The inversion below
knows kappa_j.

Guard. If the loss rises above `guard` times the dense level, the network is nearly switched off and
its gradients say little: the run starts again with nu doubled.

The result is a curvature per unit, the one at which the closed form gives the observed entry time
(for units that never entered: the observed V). Half of it is the damage, per loss row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunepath.errors import NumericsError
from prunepath.methods.bregman import Bregman, BregmanState, curvature_from, importance_order
from prunepath.methods.elimination import median_scale
from prunepath.methods.gate_loss import GateLoss
from prunepath.methods.method import Ranking, SearchContext
from prunepath.methods.run_state import RunState
from prunepath.methods.spp_config import SppConfig
from prunepath.progress import note, track
from prunepath.structure.gates import frozen

__all__ = ["coupled_ranking"]

_RESTARTS = 8
_POWER_STEPS = 8
_FLOOR = 0.1  # of the median curvature: a unit whose estimate is 0 must not move without bound


@dataclass
class _Run:
    """What is saved: the iteration's state, what was measured before it, and the losses."""

    state: BregmanState
    stiffness: float
    limit: float
    losses: list[float]
    restarts: int = 0


def coupled_ranking(context: SearchContext, config: SppConfig) -> Ranking:
    """Run the coupled dynamics on the calibration samples.

    Raises:
        NumericsError: the loss is not finite, or stays above the guard however weak the coupling.
        DiskError: the state cannot be written.
    """
    groups = context.structure.finest_groups
    fisher = {
        group.name: context.statistics.mean("fisher", group.name).cpu()
        for group in context.structure.groups
    }
    scales = [median_scale(fisher[group.name]) for group in groups]
    sizes = torch.tensor([group.num_units for group in groups])
    scale_U = torch.tensor(scales, dtype=torch.float64).repeat_interleave(sizes)
    relative_U = torch.cat([fisher[group.name] for group in groups]) / scale_U
    metric_U = relative_U + _FLOOR
    store = RunState(context, "spp-coupled", {"method": "spp", **config.to_dict()})
    with frozen(context.model):
        loss = GateLoss(context, groups, config.batch_windows)
        run = _load(store)
        if run is None:
            stiffness = _largest_eigenvalue(context, loss, config, scale_U * metric_U)
            limit = (config.guard - (context.objective == "kl")) * loss.dense_level()
            run = _Run(BregmanState.start(len(scale_U)), stiffness, limit, [])
        while not _follow(context, config, loss, run, store, scale_U, metric_U):
            run.restarts += 1
            nu = config.coupling * 2**run.restarts
            if run.restarts > _RESTARTS:
                raise NumericsError(
                    f"the loss rises above {run.limit:.3g} even with the coupling "
                    f"{nu / 2:g}; raise 'guard' or lower 'step', or use dynamics='surrogate'"
                )
            note(
                context.progress,
                f"at step {run.state.step} the loss rose to {run.losses[-1]:.3g} "
                f"(limit {run.limit:.3g}); starting again with the coupling {nu:g}",
            )
            run.state, run.losses = BregmanState.start(len(scale_U)), []
    bregman, kappa_U = _dynamics(config, run, metric_U)
    curvature = _measured(bregman, run.state, kappa_U, relative_U, loss) * scale_U
    damage = {name: fisher[name].numpy() / 2 for name in fisher}
    for name, part in loss.split(curvature).items():
        damage[name] = part.numpy() / 2
    return Ranking(damage=damage, extra=_summary(bregman, run))


def _dynamics(config: SppConfig, run: _Run, metric_U: Tensor) -> tuple[Bregman, Tensor]:
    """Constants of the iteration, and the damping of every gate."""
    nu = config.coupling * 2**run.restarts
    bregman = Bregman(
        alpha=config.step * nu,
        nu=nu,
        threshold=config.threshold,
        kappa=config.kappa,
        two_sided=config.two_sided,
    )
    return bregman, config.kappa / (1 + config.kappa * bregman.alpha * run.stiffness * metric_U)


def _follow(
    context: SearchContext,
    config: SppConfig,
    loss: GateLoss,
    run: _Run,
    store: RunState,
    scale_U: Tensor,
    metric_U: Tensor,
) -> bool:
    """Iterate until all have entered or the steps are used up; False where the guard strikes."""
    bregman, kappa_U = _dynamics(config, run, metric_U)
    slower_U = kappa_U / config.kappa
    state = run.state
    for step in track(context.progress, range(state.step, config.max_steps), "following the path"):
        if state.entered.all():
            break
        batches = loss.batches_of(step, config.batches_per_step)
        value, gradient = loss.gradient(state.mask, batches, step)
        run.losses.append(value)
        if value > run.limit:
            return False
        bregman.step_(state, gradient / scale_U, lambda force: force * slower_U)
        if state.step % config.save_every == 0:
            _save(store, run)
    _save(store, run)
    return True


def _largest_eigenvalue(
    context: SearchContext, loss: GateLoss, config: SppConfig, metric_U: Tensor
) -> float:
    """Largest eigenvalue of the loss's Hessian at open gates, relative to a diagonal metric.

    Differences of gradients stand for Hessian products: fused attention kernels have no second
    derivative. At least 1, so that the metric alone is never trusted to be too stiff.
    """
    batches = loss.batches_of(0, config.batches_per_step)
    ones = torch.ones_like(metric_U)
    _, base = loss.gradient(ones, batches)
    vector = torch.randn(len(ones), dtype=torch.float64, generator=context.generator(1))
    largest = 1.0
    for _ in track(context.progress, range(_POWER_STEPS), "measuring stiffness"):
        vector = vector / vector.abs().max()
        reach = 0.1
        _, shifted = loss.gradient(ones - reach * vector, batches)
        product = (base - shifted) / reach
        vector_norm = (vector * metric_U * vector).sum().sqrt()
        image = product / metric_U
        largest = max(largest, float((image * metric_U * image).sum().sqrt() / vector_norm))
        if not image.abs().max() > 0:
            break
        vector = image
    return largest


def _measured(
    bregman: Bregman, state: BregmanState, kappa_U: Tensor, relative_U: Tensor, loss: GateLoss
) -> Tensor:
    """Relative curvature of every unit from its entry time, or its final V; (U,).

    Increasing along every group's importance order: kappa_j differs between units and the
    inversion is capped, and neither may change the order that the run found.
    """
    end = bregman.alpha * max(state.step, 1)
    dual = bregman.reach(state).masked_fill(state.entered, bregman.threshold)
    found = curvature_from(state.time.clamp(max=end), dual, bregman.nu, kappa_U).numpy()
    place = np.empty(len(found))
    place[importance_order(bregman, state, relative_U).numpy()[::-1]] = np.arange(len(found))
    for part in loss.split(torch.arange(len(found))).values():
        units = part.numpy()[np.argsort(place[part.numpy()])]  # least important first
        found[units] = np.maximum.accumulate(found[units]) * (1 + 1e-9 * np.arange(len(units)))
    return torch.from_numpy(found)


def _save(store: RunState, run: _Run) -> None:
    tensors = {
        "mask": run.state.mask,
        "dual": run.state.dual,
        "twin": run.state.twin,
        "time": run.state.time,
        "losses": torch.tensor(run.losses, dtype=torch.float64),
    }
    facts = {
        "step": run.state.step,
        "stiffness": run.stiffness,
        "limit": run.limit,
        "restarts": run.restarts,
    }
    store.save(tensors, facts)


def _load(store: RunState) -> _Run | None:
    found = store.load()
    if found is None:
        return None
    tensors, facts = found
    losses = tensors.pop("losses").tolist()
    state = BregmanState(**tensors, step=facts["step"])
    return _Run(state, facts["stiffness"], facts["limit"], losses, facts["restarts"])


def _summary(bregman: Bregman, run: _Run) -> dict[str, Any]:
    return {
        "steps": run.state.step,
        "entered_fraction": float(run.state.entered.double().mean()),
        "coupling": bregman.nu,
        "stiffness": run.stiffness,
        "largest_loss": max(run.losses, default=0.0),
        "last_loss": run.losses[-1] if run.losses else 0.0,
    }
