"""Matching and merging of tokens: against a plain loop, and what must hold whatever merges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from prunepath.surgery.tokens import Merged, match, merge

HEADS, WIDTH, RESIDUAL = 3, 4, 5
CASES = [(9, 1, 0), (9, 1, 1), (9, 1, 4), (10, 2, 3), (12, 0, 6), (13, 4, 2), (6, 5, 0)]
every_case = pytest.mark.parametrize(("tokens", "protected", "count"), CASES)


def drawn(batch: int, tokens: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Keys (B, n, heads * width) and a residual stream (B, n, D)."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(batch, tokens, HEADS * WIDTH, generator=generator)
    return keys, torch.randn(batch, tokens, RESIDUAL, generator=generator)


def matched(keys: Tensor, protected: int, count: int) -> Tensor:
    return match(keys, key_width=WIDTH, protected=protected, count=count)


def by_hand(keys: Tensor, protected: int, count: int) -> list[set[int]]:
    """The same for one sample (n, heads * width), token by token: who ends in one token."""
    mean = keys.view(len(keys), HEADS, WIDTH).mean(1)
    taking = range(protected, len(keys), 2)
    links = []
    for going in range(protected + 1, len(keys), 2):
        likeness = {
            other: float(cosine_similarity(mean[going], mean[other], dim=0)) for other in taking
        }
        best = max(likeness, key=lambda other: likeness[other])
        links.append((likeness[best], going, best))
    groups = {token: {token} for token in range(len(keys))}
    for _, going, best in sorted(links, reverse=True)[:count]:
        groups[best] |= groups.pop(going)
    return [groups[token] for token in sorted(groups)]


@every_case
def test_it_is_what_a_plain_loop_finds(tokens: int, protected: int, count: int) -> None:
    keys, _ = drawn(4, tokens)
    place = matched(keys, protected, count)
    for row, own in zip(keys, place, strict=True):
        groups = [set(torch.where(own == index)[0].tolist()) for index in range(tokens - count)]
        assert groups == by_hand(row, protected, count)


@every_case
def test_sizes_sum_up_and_protected_tokens_stay(tokens: int, protected: int, count: int) -> None:
    keys, hidden = drawn(3, tokens)
    place = matched(keys, protected, count)
    shorter, merged = merge(hidden, Merged.nothing(hidden), place, count)
    assert shorter.shape == (3, tokens - count, RESIDUAL)
    assert torch.equal(merged.sizes.sum(1), torch.full((3,), float(tokens)))
    assert torch.equal(merged.sizes[:, :protected], torch.ones(3, protected))
    assert torch.equal(shorter[:, :protected], hidden[:, :protected])
    assert (merged.sizes > 1).any() == (count > 0)


def test_two_blocks_weigh_by_size_and_remember_every_token() -> None:
    _, hidden = drawn(2, 12)
    merged = Merged.nothing(hidden)
    now = hidden
    for seed, count in ((1, 4), (2, 3)):
        place = matched(drawn(2, now.shape[1], seed)[0], 1, count)
        now, merged = merge(now, merged, place, count)
    for row in range(2):
        for index in range(now.shape[1]):
            own = hidden[row, merged.where[row] == index]
            assert len(own) == int(merged.sizes[row, index])
            torch.testing.assert_close(now[row, index], own.mean(0))
    full = merged.spread(now)
    assert full.shape == hidden.shape
    # A mean over all tokens is what it was: merged ones count by their size.
    torch.testing.assert_close(full.mean(1), hidden.mean(1))


def test_a_row_of_a_batch_is_what_it_is_alone() -> None:
    keys, _ = drawn(5, 17)
    together = matched(keys, 1, 6)
    for row in range(5):
        assert torch.equal(matched(keys[row : row + 1], 1, 6)[0], together[row])


def test_equal_tokens_merge_in_their_order() -> None:
    keys = torch.ones(1, 7, HEADS * WIDTH)
    # tokens 2, 4 and 6 may go; all are alike, so the first goes, into the first that takes
    assert matched(keys, 1, 1).tolist() == [[0, 1, 1, 2, 3, 4, 5]]


def test_half_precision_keeps_its_type_and_exact_sizes() -> None:
    keys, hidden = drawn(2, 9)
    low = hidden.bfloat16()
    shorter, merged = merge(low, Merged.nothing(low), matched(keys.bfloat16(), 1, 3), 3)
    assert shorter.dtype == torch.bfloat16
    assert merged.sizes.dtype == torch.float32
    assert merged.bias(torch.bfloat16).shape == (2, 1, 1, 6)
