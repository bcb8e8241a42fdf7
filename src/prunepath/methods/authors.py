"""The rule of the authors' public SPP code, for comparison only.

AdamW moves the gates on the loss alone; nothing pulls them towards Gamma:

    M <- M - s_k m / (sqrt(v) / sqrt(1 - 0.999^k) + 1e-4),      s_k = lr / (1 - 0.9^k)
    z <- z + s_k (M - Gamma),      Gamma = max(z - 3, 0)

and a unit's score is how many polls it has spent with Gamma above 0 (Solution Path Pruning, arXiv
2501.03289, file adamw_spp.py: kappa 1, lambda 3 and eps 1e-4 are literals there, z uses s_k).

Deviations: their lr of 1e-3 over a hundred thousand steps is scaled up to fit a few hundred; ties
of the score, which are many, go to the larger z and then to the smaller index, since a path is a
total order; attention and FFN units share one order instead of one each with the same ratio;
gates are per KV group instead of one vector for all heads; and a whole sub-layer, which their rule
does not know, has no gate here and counts as all finest units before its consumer together. Their
objective is the task loss.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prunepath.methods.gate_loss import GateLoss
from prunepath.methods.method import FloatArray, Ranking, SearchContext
from prunepath.methods.run_state import RunState
from prunepath.methods.spp_config import SppConfig
from prunepath.progress import track
from prunepath.structure.cost import unit_cost
from prunepath.structure.gates import frozen

__all__ = ["authors_ranking"]

_THRESHOLD = 3.0
_BETAS = (0.9, 0.999)
_EPS = 1e-4


def authors_ranking(context: SearchContext, config: SppConfig) -> Ranking:
    """Run the uncoupled rule on the calibration samples.

    Returns:
        Damage in parameters per place in the order, which is no loss estimate: divided by a
        unit's parameters it reproduces the authors' order, and it says nothing else.

    Raises:
        NumericsError: the loss is not finite.
    """
    groups = [group for group in context.structure.groups if not group.is_sublayer]
    num_units = sum(group.num_units for group in groups)
    store = RunState(context, "spp-authors", {"method": "spp", **config.to_dict()})
    with frozen(context.model):
        loss = GateLoss(context, groups, config.batch_windows)
        found = store.load()
        state, start = (found[0], found[1]["step"]) if found else (_start(num_units), 0)
        steps = range(start, config.max_steps)
        for step in track(context.progress, steps, "following the path"):
            batches = loss.batches_of(step, config.batches_per_step)
            _, gradient = loss.gradient(state["mask"], batches, step)
            _step_(state, gradient, step + 1, config.learning_rate)
            if (step + 1) % config.poll_every == 0:
                state["polls"] += state["twin"] > 0
            if (step + 1) % config.save_every == 0 or step + 1 == config.max_steps:
                store.save(state, {"step": step + 1})
    order = np.lexsort((-state["dual"].numpy(), -state["polls"].numpy()))
    place = np.empty(len(order), dtype=np.float64)
    place[order] = 1 + np.arange(len(order))
    damage: dict[str, FloatArray] = {
        group.name: unit_cost(context.structure, group).params / part.numpy()
        for group, part in zip(groups, loss.split(torch.from_numpy(place)).values(), strict=True)
    }
    inside = {group.gate.key: group.name for group in context.structure.finest_groups}
    for group in context.structure.groups:
        if group.is_sublayer:
            damage[group.name] = damage[inside[group.gate.key]].sum(keepdims=True)
    scored = float((state["polls"] > 0).double().mean())
    return Ranking(damage=damage, extra={"steps": config.max_steps, "entered_fraction": scored})


def _start(num_units: int) -> dict[str, Tensor]:
    zeros = torch.zeros(num_units, dtype=torch.float64)
    state = {key: zeros.clone() for key in ("mean", "square", "dual", "twin", "polls")}
    return {"mask": zeros + 1, **state}


def _step_(state: dict[str, Tensor], gradient: Tensor, number: int, learning_rate: float) -> None:
    """One step of all gates, as the authors' optimiser makes it; `number` counts from 1."""
    fast, slow = _BETAS
    state["mean"] = fast * state["mean"] + (1 - fast) * gradient
    state["square"] = slow * state["square"] + (1 - slow) * gradient.square()
    size = learning_rate / (1 - fast**number)
    spread = state["square"].sqrt() / (1 - slow**number) ** 0.5 + _EPS
    state["mask"] = state["mask"] - size * state["mean"] / spread
    state["dual"] = state["dual"] + size * (state["mask"] - state["twin"])
    state["twin"] = (state["dual"] - _THRESHOLD).clamp_min(0)
