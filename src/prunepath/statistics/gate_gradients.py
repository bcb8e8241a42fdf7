"""Gradients of gates, read off activations: no gate has to be multiplied in.

At gates of 1 the gradient of a gate is the activation times its gradient, summed over the positions
the unit owns. Groups that gate the same positions (a head beside its own coordinates) are read off
one product. Where gates are given they are multiplied in here, and it is the activation before them
times the gradient behind, so that closed gates have gradients, too: what opening them would do.

Shapes: ... what an activation has before its last axis, w positions at a gate, U units of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from prunepath.structure.axes import IntArray
from prunepath.structure.gates import at_site, gate_gradient, owner_index, scaled
from prunepath.structure.units import UnitGroup

__all__ = ["GateGradients", "Take", "groups_by_site", "reading_gates"]

Take = Callable[[UnitGroup, Tensor], None]


@contextmanager
def reading_gates(
    model: nn.Module,
    groups: Iterable[UnitGroup],
    take: Take,
    reduce: Callable[[Tensor], Tensor] = Tensor.float,
    gates: Mapping[str, Tensor] | None = None,
) -> Iterator[None]:
    """Hooks that hand over the gradients of gates on every backward pass inside the block.

    Args:
        model: the dense model, frozen.
        groups: whose gates.
        take: told of every group and its gradients, see `GateGradients`.
        reduce: see `GateGradients`.
        gates: group -> gates of its units that the model runs with, (units,); absent: 1. A router's
            are not among them: its odds have no finite slope where they are 0.
    """
    with ExitStack() as stack:
        for same in groups_by_site(groups):
            reader = GateGradients(same, take, reduce, gates)
            stack.enter_context(at_site(model, same[0].gate, reader.read))
        yield


def groups_by_site(groups: Iterable[UnitGroup]) -> list[list[UnitGroup]]:
    """Groups put together by the positions they gate, in the order they come by."""
    sites: dict[tuple[str, str, int], list[UnitGroup]] = {}
    for group in groups:
        sites.setdefault(group.gate.key, []).append(group)
    return list(sites.values())


class GateGradients:
    """Reads the gate gradients of all groups that share one site, whenever a gradient arrives.

    Args:
        groups: the groups; their gate sites are the same.
        take: is given a group and its gate gradients, (..., U), once per backward pass and call of
            the module.
        reduce: what is made of activation times gradient, (..., w), before it is read; it may sum
            over leading axes.
        gates: see `reading_gates`.

    Example:
        >>> reader = GateGradients(groups, lambda group, units: None)  # doctest: +SKIP
        >>> with at_site(model, groups[0].gate, reader.read):  # doctest: +SKIP
        ...     model(**inputs).logits.sum().backward()
    """

    def __init__(
        self,
        groups: Sequence[UnitGroup],
        take: Take,
        reduce: Callable[[Tensor], Tensor] = Tensor.float,
        gates: Mapping[str, Tensor] | None = None,
    ) -> None:
        gate = groups[0].gate
        layout, positions = gate.layout, gate.positions
        own = {
            group.name: gates[group.name].detach()[owner_index(group)]
            for group in groups
            if gates and group.name in gates
        }
        self._gate = None
        if own:
            scale = torch.stack(list(own.values())).prod(0)
            whole = torch.ones(gate.axis.size, dtype=scale.dtype)
            self._gate = scale if positions is None else _placed(whole, positions, scale)
        # A gate's slope is what the other gates of its positions let through.
        self._others = {
            group.name: torch.stack([own[name] for name in own if name != group.name]).prod(0)
            for group in groups
            if any(name != group.name for name in own)
        }
        self._take, self._reduce = take, reduce
        self._where = None if positions is None else torch.from_numpy(positions)
        self._sizes, self._side = layout.sizes, gate.side
        self._groups = [
            (
                group,
                [dim - len(layout.names) for dim, name in enumerate(layout.names)
                 if name not in group.unit.names],
            )
            for group in groups
        ]  # fmt: skip

    def read(self, activation: Tensor) -> Tensor:
        """The edit for `structure.gates.at_site`: returns the activation, and listens."""
        if not torch.is_grad_enabled():  # a run that only stores layer inputs
            return activation if self._gate is None else scaled(activation, self._gate, self._side)
        if not activation.requires_grad:
            activation = activation.detach().requires_grad_()
        value = activation.detach()
        if self._gate is not None:
            activation = scaled(activation, self._gate, self._side)
        activation.register_hook(lambda gradient: self._split(value, gradient))  # type: ignore[no-untyped-call]
        return activation

    def _split(self, activation: Tensor, gradient: Tensor) -> None:
        contribution = self._reduce(gate_gradient(activation, gradient, self._side))
        if self._where is not None:
            contribution = contribution.index_select(-1, self._where.to(contribution.device))
        leading = contribution.shape[:-1]
        for group, others in self._groups:  # a unit's gradient sums over the factors it lacks
            units = contribution
            if group.name in self._others:
                units = units * self._others[group.name].to(units)
            units = units.reshape(*leading, *self._sizes)
            units = units.sum(others) if others else units
            self._take(group, units.reshape(*leading, group.num_units))


def _placed(whole: Tensor, positions: IntArray, part: Tensor) -> Tensor:
    """A part of an axis among ones."""
    return whole.index_copy(0, torch.from_numpy(positions), part)
