"""Plain data about merging tokens at run time: where it happens, and how many go in every block.

A block merges between its attention and its FFN, so attention sees the tokens that came in, and the
FFN and all later blocks see those that are left. Whoever counts work counts it from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prunepath.errors import RequestError
from prunepath.structure.units import PlaceInfo

__all__ = ["TokenSchedule", "TokenSite", "mergeable"]


def mergeable(tokens: int, protected: int) -> int:
    """How many of the tokens one block can merge: every second one that is not protected.

    Args:
        tokens: tokens that come in.
        protected: those of them that stay.
    """
    return max(0, tokens - protected) // 2


@dataclass(frozen=True, kw_only=True)
class TokenSite:
    """A list of layers whose tokens can merge.

    Args:
        stack: path of the list.
        num_layers: its layers.
        tokens: tokens of one sample.
        protected: those in front that stay: class, distillation and register tokens.
        key_width: coordinates of a key, averaged over heads, that tokens are compared by.
    """

    stack: str
    num_layers: int
    tokens: int
    protected: int
    key_width: int


@dataclass(frozen=True, kw_only=True)
class TokenSchedule:
    """How many tokens every block of a list merges away.

    Args:
        site: the list of layers.
        dropped: tokens that go in each block, (num_layers,).

    Raises:
        RequestError: another number of blocks, a negative number, or more than half of the tokens
            of a block.

    Example:
        >>> site = TokenSite(stack="layers", num_layers=3, tokens=9, protected=1, key_width=4)
        >>> TokenSchedule(site=site, dropped=(3, 2, 0)).left
        (6, 4, 4)
    """

    site: TokenSite
    dropped: tuple[int, ...]

    def __post_init__(self) -> None:
        site = self.site
        if len(self.dropped) != site.num_layers:
            raise RequestError(
                f"the token schedule has {len(self.dropped)} numbers and '{site.stack}' has "
                f"{site.num_layers} blocks; give the tokens to merge in every one of them"
            )
        left = site.tokens
        for block, count in enumerate(self.dropped):
            most = mergeable(left, site.protected)
            if not 0 <= count <= most:
                raise RequestError(
                    f"the token schedule merges {count} tokens in block {block}, which gets {left} "
                    f"({site.protected} of them stay); a block merges from 0 to half of the "
                    f"others, here {most}"
                )
            left -= count

    @cached_property
    def left(self) -> tuple[int, ...]:
        """Tokens behind every block."""
        counts, left = [], self.site.tokens
        for count in self.dropped:
            left -= count
            counts.append(left)
        return tuple(counts)

    @property
    def entered(self) -> tuple[int, ...]:
        """Tokens in front of every block."""
        return (self.site.tokens, *self.left[:-1])

    def share_seen(self, place: PlaceInfo) -> float:
        """The part of all tokens that a sub-layer sees: attention those that come in, the FFN
        behind it those that are left."""
        if place.stack != self.site.stack:
            return 1.0
        seen = self.entered if place.pair_layouts else self.left
        return seen[place.layer] / self.site.tokens

    @property
    def matching_macs(self) -> int:
        """Multiply-accumulates of all comparisons: in every block that merges, one half of the
        tokens with the other."""
        free = (
            entered - self.site.protected
            for entered, count in zip(self.entered, self.dropped, strict=True)
            if count
        )
        return sum((tokens // 2) * (tokens - tokens // 2) for tokens in free) * self.site.key_width

    def to_record(self) -> dict[str, Any]:
        """JSON-ready form, as it stands in the config of a model."""
        return {**vars(self.site), "dropped": list(self.dropped)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TokenSchedule:
        """Read `to_record`'s form back."""
        fields = {name: value for name, value in record.items() if name != "dropped"}
        dropped = tuple(int(count) for count in record["dropped"])
        return cls(site=TokenSite(**fields), dropped=dropped)

    def __str__(self) -> str:
        share = 100 * (1 - self.left[-1] / self.site.tokens)
        return (
            f"{self.site.tokens} tokens, {self.left[-1]} of them left at the end ({share:.0f}% "
            f"merged; per block {' '.join(map(str, self.dropped))})"
        )
