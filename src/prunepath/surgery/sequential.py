"""Sequential repair: every consumer corrects what the cut before it has already changed.

The dense model has left the outputs y_d of every consumer on some calibration windows. The cut
model runs once over the same windows; when it reaches a consumer, the inputs x_p it really gets
are at hand, and its weight W' is solved on the spot as the minimiser of

    E_windows ||y_d + alpha (h_d - h_p) - W' x_p||^2  +  mu E_dense ||W x - W' x_S||^2  +  ridge

where h_d - h_p is how far the cut model's residual stream has drifted before this consumer. The
second term is the one-shot repair of `refit.py`, formed from the dense second moments of far more
tokens; it keeps a few thousand tokens from being overfitted. The model goes on with the new
weight, so the next consumer sees its effect.

Position 0 of a window is left out of the sums: its activations are often a thousand times larger
than all others (attention sinks) and would be the only thing fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.statistics.solve import factor
from prunepath.statistics.sums import Statistics
from prunepath.structure.axes import BoolArray
from prunepath.surgery.refit import Consumer, ridge_scale

__all__ = ["refit_sequentially_"]


def refit_sequentially_(
    model: nn.Module,
    dense_weights: Mapping[str, Tensor],
    dense_outputs: Mapping[str, Tensor],
    consumers: list[Consumer],
    statistics: Statistics,
    ids: Tensor,
    *,
    alpha: float = 0.7,
    mu: float = 6.0,
    ridge: float = 1e-2,
) -> None:
    """Repair the consumers of a cut model one after the other, on its own activations.

    Args:
        model: the cut model; consumers' weights are replaced.
        dense_weights: consumer -> dense weight (O, I).
        dense_outputs: consumer -> dense outputs (B, T, O) on `ids`, kept by the search; all
            consumers of the model, cut or not.
        consumers: those that lost inputs.
        statistics: the dense model's second moments.
        ids: calibration token ids (B, T).
        alpha: how much of the drift of the residual stream each consumer corrects.
        mu: weight of the dense moments relative to the windows.
        ridge: strength of the anchor at the kept weights, relative to the median diagonal of the
            dense moment.

    Raises:
        NumericsError: a repaired weight is not finite.
    """
    kept = {consumer.name: consumer.kept for consumer in consumers}
    drift: Tensor | float = 0.0  # dense minus cut residual stream, (B, T, O)

    def before(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            assert isinstance(module, nn.Linear)
            if name in kept:
                moment = statistics.moments[name].double() / statistics.moment_tokens
                prior = _Prior(dense_weights[name], moment, kept[name], mu, ridge)
                wanted = dense_outputs[name].float() + alpha * drift
                if module.bias is not None:
                    wanted = wanted - module.bias
                module.weight.copy_(_solve(name, args[0], wanted, prior))

        return hook

    def after(name: str) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            nonlocal drift
            drift = drift + (dense_outputs[name].float() - output)

        return hook

    with ExitStack() as stack:
        for name in dense_outputs:
            module = model.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(before(name)).remove)
            stack.callback(module.register_forward_hook(after(name)).remove)
        _run_body(model, ids)


class _Prior:
    """The normal equations of the dense moments: `system` (S, S) and `target` (S, O)."""

    def __init__(
        self, weight_OI: Tensor, moment_II: Tensor, kept: BoolArray, mu: float, ridge: float
    ) -> None:
        stay = torch.from_numpy(np.flatnonzero(kept))
        weight = weight_OI.double()
        anchor = ridge * ridge_scale(moment_II)
        self.system = mu * moment_II[stay][:, stay]
        self.anchor = mu * anchor
        self.system.diagonal().add_(self.anchor)
        self.target = mu * (moment_II[stay] @ weight.T + anchor * weight[:, stay].T)


def _solve(name: str, inputs: Tensor, wanted: Tensor, prior: _Prior) -> Tensor:
    """The weight (O, S) that gives the wanted outputs, held by the prior; solved in float64."""
    rows = inputs[:, 1:].reshape(-1, inputs.shape[-1])
    wishes = wanted[:, 1:].reshape(len(rows), -1).to(rows.dtype)
    system = (rows.T @ rows).double() / len(rows) + prior.system
    target = (rows.T @ wishes).double() / len(rows) + prior.target
    weight = torch.cholesky_solve(target, factor(system, prior.anchor)).T
    if not torch.isfinite(weight).all():
        raise NumericsError(
            f"the repaired weight of '{name}' is not finite; extract with --refit moments or none"
        )
    return weight


@torch.no_grad()
def _run_body(model: Any, ids: Tensor) -> None:
    """Run the layers without the language-model head, whose logits nobody needs here."""
    body = getattr(model, getattr(model, "base_model_prefix", ""), model)
    body(input_ids=ids.to(next(model.parameters()).device), use_cache=False)
