"""Ladders: the steps of each sub-layer by themselves, with what the first n of them save.

An order mixes the steps of all sub-layers into one sequence. Rules that give every sub-layer a size
of its own ask how far down each is cut instead: one count per ladder. What a ladder's steps save
does not depend on other ladders, so the cost of any counts is a sum, and exact. Sub-layers that
leave with a unit of another (experts) stand on its ladder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunepath.allocation.budget import metric_value
from prunepath.allocation.steps import Step
from prunepath.structure.cost import Cost, place_cost
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import PlaceInfo, Structure

__all__ = ["Counts", "Ladder", "Ladders"]

Counts = tuple[int, ...]
"""How many steps of each ladder are made."""


@dataclass(frozen=True)
class Ladder:
    """The steps of one sub-layer, in the order of the path.

    Args:
        places: what they cut; more than one where modules leave whole.
        steps: first removed first.
    """

    places: tuple[PlaceInfo, ...]
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """Path of the first of its places."""
        return self.places[0].path


class Ladders:
    """All ladders of a sequence of steps.

    Args:
        structure: the dense model's structure.
        steps: steps of the `per-layer` layout, each of one group, as `build_steps` orders them.
        metric: what is saved; not latency.
        sequence_length: tokens it is stated for.

    Example:
        >>> ladders = Ladders(structure, steps, "params")  # doctest: +SKIP
        >>> ladders.total((0,) * len(ladders))  # doctest: +SKIP
        0
    """

    def __init__(
        self, structure: Structure, steps: Sequence[Step], metric: str, sequence_length: int = 512
    ) -> None:
        self._structure, self._length = structure, sequence_length
        self.metric = metric
        self._ladders = _split(structure, steps)
        self._saved: dict[tuple[int, int], int] = {}
        self._dense = [self._value(ladder, Selection({})) for ladder in self._ladders]

    def __len__(self) -> int:
        return len(self._ladders)

    def __getitem__(self, index: int) -> Ladder:
        return self._ladders[index]

    def height(self, index: int) -> int:
        """Steps of a ladder."""
        return len(self._ladders[index].steps)

    def saved(self, index: int, count: int) -> int:
        """What the first `count` steps of a ladder save, in the metric."""
        if (index, count) not in self._saved:
            ladder = self._ladders[index]
            left = self._value(ladder, self._after(ladder, count))
            self._saved[index, count] = self._dense[index] - left
        return self._saved[index, count]

    def most(self, index: int) -> int:
        """What all steps of a ladder save."""
        return self.saved(index, self.height(index))

    def total(self, counts: Sequence[int]) -> int:
        """What counts of all ladders save together."""
        return sum(self.saved(index, count) for index, count in enumerate(counts))

    def count_for(self, index: int, saving: float) -> int:
        """The fewest steps of a ladder that save as much; all of them where none do."""
        low, high = 0, self.height(index)
        while low < high:
            middle = (low + high) // 2
            if self.saved(index, middle) >= saving:
                high = middle
            else:
                low = middle + 1
        return low

    def nearest(self, index: int, saving: float) -> int:
        """The number of steps of a ladder that saves most nearly as much; of two the smaller."""
        above = self.count_for(index, saving)
        below = max(0, above - 1)
        nearer = saving - self.saved(index, below) <= self.saved(index, above) - saving
        return below if nearer else above

    def alone(self, index: int, count: int) -> Selection:
        """The dense model with the first steps of one ladder made."""
        return self._after(self._ladders[index], count)

    def selection(self, counts: Sequence[int]) -> Selection:
        """Units kept when so many steps of each ladder are made."""
        return everything(self._structure).without(
            pair
            for ladder, count in zip(self._ladders, counts, strict=True)
            for step in ladder.steps[:count]
            for pair in step.removed
        )

    def counts(self, selection: Selection) -> Counts:
        """How many steps of each ladder a selection has made, where those are the first ones."""

        def made(step: Step) -> bool:
            group, units = step.removed[0]
            return not selection.of(group)[units].any()

        return tuple(sum(map(made, ladder.steps)) for ladder in self._ladders)

    def give_back(self, counts: Sequence[int], required: float, order: Sequence[int]) -> Counts:
        """Take steps back, ladder by ladder, while the rest saves what is required.

        Args:
            counts: save at least that.
            required: what must be saved.
            order: ladders, the one that is relieved first in front.
        """
        left = list(counts)
        slack = self.total(left) - required
        for index in order:
            saved = self.saved(index, left[index])
            count = min(left[index], self.count_for(index, saved - slack))
            slack -= saved - self.saved(index, count)
            left[index] = count
        return tuple(left)

    def _after(self, ladder: Ladder, count: int) -> Selection:
        return Selection({}).without(pair for step in ladder.steps[:count] for pair in step.removed)

    def _value(self, ladder: Ladder, selection: Selection) -> int:
        cost = sum(
            (
                place_cost(self._structure, place, selection, self._length)
                for place in ladder.places
            ),
            start=Cost(params=0, macs=0, weight_bytes=0, kv_bytes_per_token=0),
        )
        return int(metric_value(cost, self.metric, self._length))


def _split(structure: Structure, steps: Sequence[Step]) -> list[Ladder]:
    """Steps by sub-layer; in the order of the model."""
    owner = {place.path: place.path for place in structure.places}
    for step in steps:
        group = step.removed[0][0]
        owner.update(dict.fromkeys((path for path in group.members if path in owner), group.place))
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(owner[step.removed[0][0].place], []).append(step)
    members: dict[str, list[PlaceInfo]] = {name: [] for name in found}
    for place in structure.places:
        if owner[place.path] in members:
            members[owner[place.path]].append(place)
    for name, places in members.items():  # the sub-layer itself in front of what leaves with it
        places.sort(key=lambda place: place.path != name)
    ordered = [place.path for place in structure.places if place.path in found]
    return [Ladder(tuple(members[name]), tuple(found[name])) for name in ordered]
