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

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.statistics.solve import factor
from prunepath.statistics.sums import Statistics
from prunepath.structure.axes import BoolArray
from prunepath.structure.matrices import own_inputs, set_weight_
from prunepath.surgery.refit import Consumer, ridge_scale

__all__ = ["refit_sequentially_"]


def refit_sequentially_(
    model: nn.Module,
    dense_weights: Mapping[str, Tensor],
    dense_outputs: Mapping[str, Tensor],
    consumers: list[Consumer],
    statistics: Statistics,
    run: Callable[[], None],
    *,
    skip_first: bool,
    masks: Sequence[Tensor] = (),
    additive: bool = True,
    streams: Mapping[str, str] | None = None,
    alpha: float = 0.7,
    prior: float = 38.5,
    ridge: float = 0.1,
) -> None:
    """Repair the consumers of a cut model one after the other, on its own activations.

    Args:
        model: the cut model; consumers' weights are replaced.
        dense_weights: consumer -> dense weight (O, I).
        dense_outputs: consumer -> dense outputs (B, T, O) on those windows, kept by the search;
            all consumers of the model, cut or not.
        consumers: those that lost inputs.
        statistics: the dense model's second moments.
        run: runs the cut model's layers once on the windows the outputs were kept for.
        skip_first: leave position 0 out of the sums (attention sinks of decoders).
        masks: (B, T) each, 0 where a window is padded; texts of two lengths have two, and each
            consumer takes the one of its own length.
        additive: whether what consumers put out is added to the residual stream as it is; where a
            norm or a scale comes in between, no consumer corrects the drift of earlier ones.
        streams: consumer -> the residual stream it adds to, where a model has several (encoder and
            decoder); None: all to one.
        alpha: how much of the drift of the residual stream each consumer corrects.
        prior: how many samples the dense moments count for: few windows are held by them, many
            speak for themselves; mu is this over the number of samples.
        ridge: strength of the anchor at the kept weights, relative to the median diagonal of the
            dense moment.

    Raises:
        NumericsError: a repaired weight is not finite.
    """
    kept = {consumer.name: consumer.kept for consumer in consumers}
    drift: dict[str, Tensor] = {}  # dense minus cut residual stream, (B, T, O), by its name
    stream_of = streams or {}

    flattened: dict[int, torch.Size] = {}  # rows -> (B, T), for FFNs that see all rows in one

    def tokens_of(inputs: Tensor) -> torch.Size:
        return flattened.get(inputs.shape[:-1].numel(), inputs.shape[:-1])

    def before(name: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...]) -> None:
            if args[0].ndim > 2:
                flattened[args[0].shape[:-1].numel()] = args[0].shape[:-1]
            if name in kept:
                wanted = dense_outputs[name].float()
                stream = stream_of.get(name, "")
                if additive and stream in drift:
                    wanted = wanted + alpha * drift[stream].reshape(wanted.shape)
                if module.bias is not None:
                    wanted = wanted - module.bias
                inputs = own_inputs(module, args[0])
                counted = _counted(tokens_of(inputs), skip_first, masks)
                mu = prior / len(dense_outputs[name])
                moment = statistics.mean("moments", name)
                held = _Prior(dense_weights[name], moment, kept[name], mu, ridge)
                set_weight_(module, _solve(name, inputs, wanted, counted, held))

        return hook

    def after(name: str) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            stream = stream_of.get(name, "")
            change = dense_outputs[name].float() - output
            if stream in drift:  # some layers flatten (B, T) in front of their FFN
                change = change.reshape(drift[stream].shape) + drift[stream]
            drift[stream] = change

        return hook

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for name in dense_outputs:
            module = model.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(before(name)).remove)
            if additive:
                stack.callback(module.register_forward_hook(after(name)).remove)
        run()


def _counted(shape: torch.Size, skip_first: bool, masks: Sequence[Tensor]) -> Tensor:
    """Which rows of (B, T) count, bool, (B * T,)."""
    counted = torch.ones(shape, dtype=torch.bool)
    fitting = next((mask for mask in masks if mask.shape == counted.shape), None)
    if fitting is not None:
        counted = fitting.cpu().bool().clone()
    if skip_first and counted.ndim == 2:
        counted[:, 0] = False
    return counted.reshape(-1)


class _Prior:
    """The normal equations of the dense moments: `system` (S, S) and `target` (S, O)."""

    def __init__(
        self, weight_OI: Tensor, moment_II: Tensor, kept: BoolArray, mu: float, ridge: float
    ) -> None:
        stay = torch.from_numpy(np.flatnonzero(kept))
        weight = weight_OI.double()
        anchor = ridge * ridge_scale(moment_II)
        self.system = mu * moment_II[stay][:, stay]
        self.anchor = (1 + mu) * anchor
        self.system.diagonal().add_(self.anchor)
        self.target = mu * (moment_II[stay] @ weight.T) + self.anchor * weight[:, stay].T


def _solve(name: str, inputs: Tensor, wanted: Tensor, counted: Tensor, prior: _Prior) -> Tensor:
    """The weight (O, S) that gives the wanted outputs, held by the prior; solved in float64."""
    rows = inputs.reshape(-1, inputs.shape[-1])[counted]
    wishes = wanted.reshape(len(counted), -1)[counted].to(rows.dtype)
    system = (rows.T @ rows).double() / len(rows) + prior.system
    target = (rows.T @ wishes).double() / len(rows) + prior.target
    weight = torch.cholesky_solve(target, factor(system, prior.anchor)).T
    if not torch.isfinite(weight).all():
        raise NumericsError(
            f"the repaired weight of '{name}' is not finite; extract with --refit moments or none"
        )
    return weight
