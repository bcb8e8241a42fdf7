"""Which modules a model calls in one forward pass, in which order, and what flows through them.

Where a unit's effect begins, what comes before it and what comes behind it are read off this
tape, so nothing here knows an architecture. A module that runs several times (shared layers) has
several calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Call", "CallTape", "first_tensor", "tensors_of"]


@dataclass(frozen=True)
class Seen:
    """A tensor that passed: where it lies and its shape."""

    address: int
    shape: tuple[int, ...]

    def same(self, other: Seen | None) -> bool:
        """Whether it is the same memory, seen as equally many values of the same width."""
        return (
            other is not None
            and self.address == other.address
            and self.shape[-1:] == other.shape[-1:]
            and torch.Size(self.shape).numel() == torch.Size(other.shape).numel()
        )


@dataclass(eq=False)
class Call:
    """One call of one module.

    Args:
        module: full path.
        number: how many calls of it came before.
        begin: position on the tape where it began.
        end: where it ended; everything called in between lies between the two.
        source: the first tensor it was given.
        result: the first tensor it returned.
        shapes: shapes of all tensors it returned; None where it also returned something that is
            neither a tensor nor made of tensors and plain values.
        parent: the call it happened in; None for the model's own.
        inside: calls that happened directly in it, in order.
    """

    module: str
    number: int
    begin: int
    source: Seen | None
    parent: Call | None
    end: int = -1
    result: Seen | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None
    inside: list[Call] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        """Whether it returned what it was given (dropout that is switched off)."""
        return self.source is not None and self.source.same(self.result)

    def leaves(self) -> Iterator[Call]:
        """Calls in it that called nothing themselves, in order; itself if it is one."""
        if not self.inside:
            yield self
        for call in self.inside:
            yield from call.leaves()


@dataclass(frozen=True, eq=False)
class CallTape:
    """All calls of one forward pass in the order they began."""

    calls: tuple[Call, ...]
    names: Mapping[int, str]

    @classmethod
    def record(
        cls, model: nn.Module, run: Callable[[], object], held: Collection[str] = ()
    ) -> CallTape:
        """Run the model once and write down what is called.

        Args:
            model: the model, in the state it is to be watched in.
            run: runs it once.
            held: modules whose first tensors in and out are kept alive until the end, so that no
                other tensor takes their place in memory and `Seen.same` can be relied on.
        """
        calls: list[Call] = []
        running: list[Call] = []
        counts: dict[str, int] = {}
        alive: list[Tensor | None] = []
        clock = iter(range(2**62))
        names = {id(module): name for name, module in model.named_modules()}

        def enter(name: str) -> Any:
            def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
                tensor = first_tensor((args, kwargs))
                number = counts.get(name, 0)
                counts[name] = number + 1
                parent = running[-1] if running else None
                call = Call(name, number, next(clock), _seen(tensor), parent)
                if parent is not None:
                    parent.inside.append(call)
                calls.append(call)
                running.append(call)
                if name in held:
                    alive.append(tensor)

            return hook

        def leave(name: str) -> Any:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                call = running.pop()
                assert call.module == name
                tensor = first_tensor(output)
                call.end, call.result = next(clock), _seen(tensor)
                found = tensors_of(output)
                call.shapes = None if found is None else tuple(tuple(t.shape) for t in found)
                if name in held:
                    alive.append(tensor)

            return hook

        with ExitStack() as stack, torch.no_grad():
            for name, module in model.named_modules():
                handle = module.register_forward_pre_hook(enter(name), with_kwargs=True)
                stack.callback(handle.remove)
                stack.callback(module.register_forward_hook(leave(name)).remove)
            run()
        return cls(tuple(calls), names)

    @cached_property
    def _by_module(self) -> dict[str, list[Call]]:
        found: dict[str, list[Call]] = {}
        for call in self.calls:
            found.setdefault(call.module, []).append(call)
        return found

    def of(self, model: nn.Module, module: str) -> list[Call]:
        """All calls of a module, by any of the paths it hangs at; empty where it never ran."""
        name = self.names[id(model.get_submodule(module))]
        return self._by_module.get(name, [])


def _seen(tensor: Tensor | None) -> Seen | None:
    return None if tensor is None else Seen(tensor.data_ptr(), tuple(tensor.shape))


def first_tensor(value: Any) -> Tensor | None:
    """The first floating tensor in arguments or in an answer; None where there is none."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if not isinstance(value, Mapping | list | tuple):
        return None
    parts: Any = value.values() if isinstance(value, Mapping) else value
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def tensors_of(value: Any) -> list[Tensor] | None:
    """All tensors in an answer, in order; None where it holds anything that is neither a tensor,
    nor a plain value, nor a tuple, list or mapping of those."""
    if isinstance(value, Tensor):
        return [value]
    if value is None or isinstance(value, bool | int | float | str):
        return []
    if not isinstance(value, Mapping | list | tuple):
        return None
    parts: Any = value.values() if isinstance(value, Mapping) else value
    found: list[Tensor] = []
    for part in parts:
        inner = tensors_of(part)
        if inner is None:
            return None
        found += inner
    return found
