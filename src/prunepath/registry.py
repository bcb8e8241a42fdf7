"""One generic registry: lazy targets, open to third parties, collisions refused, did-you-mean.

Methods, families and runtime modules are looked up here, so that importing `prunepath` imports
none of them. A third party adds an entry with `register`, or with a Python entry point in the
group the registry names; both look the same to the user.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from prunepath.errors import RequestError

__all__ = ["Registry", "did_you_mean"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names mapped to objects, or to `"module:attribute"` strings that are imported on first use.

    Args:
        noun: what an entry is called in messages, for example `"method"`.
        entry_point_group: the entry-point group third parties may use.

    Example:
        >>> shapes = Registry("shape")
        >>> shapes.register("round", object())
        >>> shapes["rund"]
        Traceback (most recent call last):
        ...
        prunepath.errors.RequestError: unknown shape 'rund'; did you mean 'round'? Known: round
    """

    def __init__(self, noun: str, entry_point_group: str | None = None) -> None:
        self._noun = noun
        self._group = entry_point_group
        self._targets: dict[str, T | str] = {}

    def register(self, name: str, target: T | str) -> None:
        """Add an entry; a name can be taken once.

        Raises:
            RequestError: the name is already taken by something else.
        """
        if name in self._targets and self._targets[name] != target:
            raise RequestError(
                f"the {self._noun} '{name}' is already registered; choose another name"
            )
        self._targets[name] = target

    def __getitem__(self, name: str) -> T:
        if name not in self._targets:
            self._load_entry_points()
        if name not in self._targets:
            known = ", ".join(sorted(self._targets))
            hint = did_you_mean(name, self._targets)
            raise RequestError(f"unknown {self._noun} '{name}'{hint} Known: {known}")
        target = self._targets[name]
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = cast(T, getattr(importlib.import_module(module), attribute))
            self._targets[name] = target
        return target

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        self._load_entry_points()
        return iter(sorted(self._targets))

    def _load_entry_points(self) -> None:
        if self._group is None:
            return
        for point in entry_points(group=self._group):
            self._targets.setdefault(point.name, point.value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """How a message about an unknown name goes on: with the nearest known one, if any is near.

    Example:
        >>> did_you_mean("fischer", ["fisher", "spp"]), did_you_mean("xyz", ["spp"])
        ("; did you mean 'fisher'?", '.')
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else "."
