"""Where a layer adds what its sub-layers say to its residual stream, found by watching it run.

No table says it: some families scale or norm what a sub-layer says before they add it, some norm
the sum, some add attention and FFN in one expression, some flatten tokens or undo windows on the
way. So what comes out of a consumer is followed through every function it passes until it is added
to a tensor of the same shape that none of it is in: the residual stream.

Shapes: ... any leading axes, d the residual width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["ResidualAdds", "Take", "tensors_in"]

Take = Callable[[str, Tensor, Tensor], None]
"""Sub-layer, residual stream before it is added to, and what is added; both (..., d)."""

_Said = Mapping[str, Tensor | None]
"""Sub-layers a tensor carries -> what each of them adds; None: the tensor itself."""
_ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
_WRITES = {"__setitem__"}


class ResidualAdds(TorchFunctionMode):
    """While it is on, hears of every residual add behind the outputs that were marked.

    Args:
        take: called once for every sub-layer and residual add, before the add happens.
    """

    def __init__(self, take: Take) -> None:
        super().__init__()
        self._take = take
        self._said: dict[int, tuple[Tensor, _Said]] = {}  # the tensor is held: its id stays its own

    def mark(self, name: str, output: Tensor) -> None:
        """Say that a tensor is what a sub-layer put out.

        Args:
            name: of the sub-layer; empty: it is followed, so that it is not taken for the stream,
                and not told.
            output: what it put out.
        """
        self._said[id(output)] = (output, {name: None})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        tensors = list(tensors_in((args, kwargs)))
        carried = [(tensor, said) for tensor in tensors if (said := self._of(tensor))]
        if not carried:
            return func(*args, **(kwargs or {}))
        plain = name in _ADDITIONS and not kwargs and len(tensors) == 2
        if plain and len(carried) == 1 and tensors[0].shape == tensors[1].shape:
            ((added, said),) = carried
            stream = tensors[1] if tensors[0] is added else tensors[0]
            for place, own in said.items():
                if place:
                    self._take(place, stream, added if own is None else own)
            output = func(*args)
            self._said.pop(id(output), None)  # added in place: it is the stream from now on
            return output
        # A name that ends with _ may write into an operand, whose old values are still wanted.
        said = _together(carried, keep=name.endswith("_"))
        output = func(*args, **(kwargs or {}))
        written = [args[0]] if name in _WRITES else []
        for tensor in (*tensors_in(output), *written):
            self._said[id(tensor)] = (tensor, said)
        return output

    def _of(self, tensor: Tensor) -> _Said:
        found = self._said.get(id(tensor))
        return found[1] if found is not None else {}


def _together(carried: list[tuple[Tensor, _Said]], *, keep: bool) -> _Said:
    """What a function of these tensors carries. A sub-layer alone in it is followed on; where two
    meet, what each of them adds is settled."""
    places = {place for _, said in carried for place in said}
    if len(places) == 1:
        settled = next(
            (own for _, said in carried for own in said.values() if own is not None), None
        )
        return dict.fromkeys(places, settled)
    return {
        place: (tensor.clone() if keep else tensor) if own is None else own
        for tensor, said in carried
        for place, own in said.items()
    }


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in arguments or in an answer, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
