"""Gradients of gates, read off activations: no gate has to be multiplied in.

At gates of 1 the gradient of a gate is the activation times its gradient, summed over the positions
the unit owns. Groups that gate the same positions (a head beside its own coordinates) are read off
one product.

Shapes: ... what an activation has before its last axis, w positions at a gate, U units of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from prunepath.structure.gates import at_site, gate_gradient
from prunepath.structure.units import UnitGroup

__all__ = ["GateGradients", "Take", "groups_by_site", "reading_gates"]

Take = Callable[[UnitGroup, Tensor], None]


@contextmanager
def reading_gates(
    model: nn.Module,
    groups: Iterable[UnitGroup],
    take: Take,
    reduce: Callable[[Tensor], Tensor] = Tensor.float,
) -> Iterator[None]:
    """Hooks that hand over the gradients of gates at 1 on every backward pass inside the block.

    Args:
        model: the dense model, frozen.
        groups: whose gates.
        take: told of every group and its gradients, see `GateGradients`.
        reduce: see `GateGradients`.
    """
    with ExitStack() as stack:
        for same in groups_by_site(groups):
            reader = GateGradients(same, take, reduce)
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
    ) -> None:
        gate = groups[0].gate
        layout, positions = gate.layout, gate.positions
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
            return activation
        if not activation.requires_grad:
            activation = activation.detach().requires_grad_()
        value = activation.detach()
        activation.register_hook(lambda gradient: self._split(value, gradient))  # type: ignore[no-untyped-call]
        return activation

    def _split(self, activation: Tensor, gradient: Tensor) -> None:
        contribution = self._reduce(gate_gradient(activation, gradient, self._side))
        if self._where is not None:
            contribution = contribution.index_select(-1, self._where.to(contribution.device))
        leading = contribution.shape[:-1]
        contribution = contribution.reshape(*leading, *self._sizes)
        for group, others in self._groups:  # a unit's gradient sums over the factors it lacks
            units = contribution.sum(others) if others else contribution
            self._take(group, units.reshape(*leading, group.num_units))
