"""How many tokens every block merges: two numbers that spread a total over depth, or scores.

Blocks differ only in when they merge: a token that goes early saves the work of all blocks behind
it and takes what it knows out of them. Both ways below respect the cap of a block (half of its free
tokens), and never merge where a cut left no keys to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunepath.errors import BudgetError, RequestError
from prunepath.structure.tokens import TokenSchedule, TokenSite, mergeable

__all__ = ["TokenOptions", "most_mergeable", "schedule_from_scores", "spread"]

_HALVINGS = 40  # of the price of a MAC, when scores are weighed against work


@dataclass(frozen=True, kw_only=True)
class TokenOptions:
    """What is asked of token merging.

    Args:
        share: part of the saving that merging takes, in [0, 1]; the rest is cut from units.
        decay: tokens merged in a block relative to the one before it; 1 spreads them evenly, below
            1 puts them in early blocks, above in late ones.
        dropped: tokens to merge in every block; replaces the other two.
        scored: let measured damages say where the tokens of the share merge, instead of `decay`.
    """

    share: float = 0.0
    decay: float = 1.0
    dropped: tuple[int, ...] = ()
    scored: bool = False

    def __post_init__(self) -> None:
        if self.scored and not self.share:
            raise RequestError(
                "a scored token schedule was asked for without a share; say which part of the "
                "saving merging takes (--token-share 0.7)"
            )
        if self.scored and self.decay != 1:
            raise RequestError(
                f"a scored token schedule and token decay {self.decay:g} were given; both say "
                "where tokens merge, so give one of them"
            )
        if not 0 <= self.share <= 1:
            raise RequestError(
                f"token share {self.share:g} was asked for; it is the part of the saving that "
                "token merging takes, from 0 (none of it) to 1 (all of it)"
            )
        if not (self.decay > 0 and np.isfinite(self.decay)):
            raise RequestError(
                f"token decay {self.decay:g} was asked for; it is the tokens merged in a block "
                "relative to the block before, a number above 0 (1: evenly)"
            )
        if self.dropped and self.share:
            raise RequestError(
                f"a token share ({self.share:g}) and a token schedule were given; the schedule "
                "alone says how many tokens merge, so give one of them"
            )

    def __bool__(self) -> bool:
        return bool(self.share or self.dropped)


def spread(
    site: TokenSite, total: int, decay: float, allowed: Sequence[bool] | None = None
) -> TokenSchedule:
    """A total number of tokens, spread over depth.

    Block l merges in proportion to decay^l; what a block's cap leaves over goes to the next. The
    tokens gone behind any block never decrease with `total`.

    Args:
        site: where tokens merge.
        total: tokens that go in all blocks together; fewer do where the caps leave no room.
        decay: see `TokenOptions`.
        allowed: blocks that may merge, (num_layers,); None: all.

    Example:
        >>> site = TokenSite(stack="layers", num_layers=4, tokens=17, protected=1, key_width=8)
        >>> spread(site, 10, 0.5).dropped
        (5, 3, 1, 1)
        >>> spread(site, 13, 0.2).dropped  # block 0 is capped at half of 16
        (8, 4, 1, 0)
    """
    may = np.ones(site.num_layers, dtype=bool) if allowed is None else np.asarray(allowed)
    weights = np.where(may, decay ** np.arange(site.num_layers, dtype=np.float64), 0.0)
    parts = np.cumsum(weights) / max(weights.sum(), np.finfo(np.float64).tiny)
    gone, dropped = 0, []
    for block in range(site.num_layers):
        wanted = int(np.floor(total * parts[block] + 0.5)) - gone
        most = mergeable(site.tokens - gone, site.protected) if may[block] else 0
        count = max(0, min(wanted, most))
        dropped.append(count)
        gone += count
    return TokenSchedule(site=site, dropped=tuple(dropped))


def most_mergeable(site: TokenSite) -> int:
    """Tokens that could ever go: all free ones but the last."""
    return max(0, site.tokens - site.protected - 1)


def schedule_from_scores(
    site: TokenSite,
    scores: ArrayLike,
    limit: float,
    macs_of: Callable[[TokenSchedule], float],
    allowed: Sequence[bool] | None = None,
    *,
    by_share: bool = False,
) -> TokenSchedule:
    """The schedule of least damage at or under a limit, from what merging in each block costs.

    Minimises the sum of damages over schedules with `macs_of(schedule) <= limit`. For a price of a
    token at every depth the best schedule is exact (dynamic programming over blocks and tokens
    left); the price is bisected until the limit is met, and what it leaves over is given back token
    by token, the most damaging first.

    Args:
        site: where tokens merge.
        scores: damage of merging tokens in a block: (num_layers,), the same for every token; or
            (num_layers, tokens), of the first, second, ... token that goes there, sorted here.
        limit: what the schedule may cost at most.
        macs_of: what it costs: counted MACs, or seconds.
        allowed: blocks that may merge, (num_layers,); None: all.
        by_share: where fewer tokens come into a block, let merging the same share of them do the
            same damage (scores measured block by block, all tokens there); else the same number.

    Raises:
        RequestError: scores of another shape, or not finite, or negative.
        BudgetError: merging all that can merge costs more than the limit.

    Example:
        >>> site = TokenSite(stack="layers", num_layers=3, tokens=9, protected=1, key_width=4)
        >>> schedule_from_scores(site, [9.0, 1.0, 5.0], 20, lambda s: sum(s.left)).dropped
        (0, 4, 0)
    """
    damage = _by_tokens_entered(site, _cumulated(site, scores), by_share)
    if allowed is not None:
        damage[~np.asarray(allowed, dtype=bool), :, 1:] = np.inf
    if macs_of(TokenSchedule(site=site, dropped=(0,) * site.num_layers)) <= limit:
        return TokenSchedule(site=site, dropped=(0,) * site.num_layers)
    low, high = 0.0, 1.0
    best = _cheapest(site, damage, high)
    while macs_of(best) > limit and high < 1e30:
        low, high = high, high * 8
        best = _cheapest(site, damage, high)
    if macs_of(best) > limit:
        raise BudgetError(
            f"the token schedule may cost {limit:.4g}, and merging all tokens that can merge in "
            f"'{site.stack}' leaves {macs_of(best):.4g}; ask for at least that"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = _cheapest(site, damage, middle)
        if macs_of(found) <= limit:
            high, best = middle, found
        else:
            low = middle
    return _given_back(site, damage, best, limit, macs_of)


def _cumulated(site: TokenSite, scores: ArrayLike) -> NDArray[np.float64]:
    """Damage of merging the first k tokens of a block, (num_layers, tokens + 1)."""
    found = np.asarray(scores, dtype=np.float64)
    if found.ndim == 1:
        found = np.repeat(found[:, None], max(1, mergeable(site.tokens, site.protected)), axis=1)
    needed = mergeable(site.tokens, site.protected)
    if found.ndim != 2 or found.shape[0] != site.num_layers or found.shape[1] < needed:
        raise RequestError(
            f"the token scores have the shape {np.shape(scores)}; '{site.stack}' has "
            f"{site.num_layers} blocks that merge up to {needed} tokens, so give "
            f"({site.num_layers},) or ({site.num_layers}, {needed}) of them"
        )
    if not np.isfinite(found).all() or (found < 0).any():
        raise RequestError(
            "the token scores hold a negative number or one that is not finite; a score is the "
            "damage that merging a token does"
        )
    start = np.zeros((site.num_layers, 1))
    return np.concatenate([start, np.cumsum(np.sort(found, axis=1), axis=1)], axis=1)


def _by_tokens_entered(
    site: TokenSite, damage: NDArray[np.float64], by_share: bool
) -> NDArray[np.float64]:
    """Damage of merging so many of so many tokens, (num_layers, tokens + 1, tokens + 1)."""
    counts = np.arange(damage.shape[1])
    full = mergeable(site.tokens, site.protected)
    table = np.empty((site.num_layers, site.tokens + 1, len(counts)))
    for entered in range(site.tokens + 1):
        most = mergeable(entered, site.protected)
        alike = counts * full / most if by_share and most else counts
        for block in range(site.num_layers):
            table[block, entered] = np.interp(alike, counts, damage[block])
    return table


def _cheapest(site: TokenSite, damage: NDArray[np.float64], price: float) -> TokenSchedule:
    """The schedule with the least damage plus price x tokens seen behind all blocks."""
    sizes = site.tokens + 1
    later = np.zeros(sizes)  # least damage plus price of the blocks behind, by tokens left
    choices = np.zeros((site.num_layers, sizes), dtype=np.int64)
    for block in reversed(range(site.num_layers)):
        now = np.full(sizes, np.inf)
        for count in range(mergeable(site.tokens, site.protected) + 1):
            # tokens in front of the block from which so many can go
            first = site.protected + 2 * count if count else 0
            entered = np.arange(first, sizes)
            total = (
                damage[block, entered, count] + price * (entered - count) + later[entered - count]
            )
            better = total < now[entered]
            now[entered[better]] = total[better]
            choices[block, entered[better]] = count
        later = now
    left, dropped = site.tokens, []
    for block in range(site.num_layers):
        dropped.append(int(choices[block, left]))
        left -= dropped[-1]
    return TokenSchedule(site=site, dropped=tuple(dropped))


def _given_back(
    site: TokenSite,
    damage: NDArray[np.float64],
    schedule: TokenSchedule,
    limit: float,
    macs_of: Callable[[TokenSchedule], float],
) -> TokenSchedule:
    """Merge fewer tokens where the limit has room, those that do most damage first."""
    while True:
        counts = schedule.dropped
        last = [
            damage[block, entered, count] - damage[block, entered, count - 1]
            for block, (entered, count) in enumerate(zip(schedule.entered, counts, strict=True))
        ]
        blocks = sorted(
            (block for block, count in enumerate(counts) if count), key=lambda b: -last[b]
        )
        for block in blocks:
            fewer = tuple(count - (index == block) for index, count in enumerate(counts))
            kept = TokenSchedule(site=site, dropped=fewer)
            if macs_of(kept) <= limit:
                schedule = kept
                break
        else:
            return schedule
