"""Every family x every unit kind x every selection: the gated and the cut model are the same.

The rows come from `FAMILIES` and `SELECTIONS`; a new family or case joins there by one line.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from prunepath.structure.gates import gated, gates_of, new_gates
from prunepath.structure.selection import Selection, everything
from prunepath.surgery.cut import cut
from tests.conformance.cases import TOKENS, every_case, every_family, smaller
from tests.conformance.families import dense, random_tokens, structure_of, unit_kinds
from tests.conformance.selections import select

TOLERANCE = 1e-5
LEFT_PADDING = (0, 5, 13)

every_attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def left_padded_mask() -> Tensor:
    """Attention mask, shape (rows, TOKENS): each row starts later than the one before."""
    start = torch.tensor(LEFT_PADDING).unsqueeze(1)
    return (torch.arange(TOKENS) >= start).long()


def furthest(left: Tensor, right: Tensor) -> float:
    assert torch.isfinite(left).all()
    return float((left - right).abs().max())


@every_case
@every_attention
def test_gated_logits_equal_cut_logits(family: str, kind: str, name: str, attention: str) -> None:
    model, structure = dense(family, attention), structure_of(family)
    selection = select(structure, kind, name)
    cut_model = cut(model, structure, selection)
    ids, mask = random_tokens(len(LEFT_PADDING), TOKENS), left_padded_mask()
    for batch in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
        with gated(model, structure, gates_of(selection, structure)):
            expected = model(**batch).logits
        found = cut_model(**batch).logits
        real = batch.get("attention_mask", torch.ones_like(ids)).bool()
        assert furthest(found[real], expected[real]) <= TOLERANCE, list(batch)


@every_family
@every_attention
def test_nothing_removed_is_bit_equal(family: str, attention: str) -> None:
    model, structure = dense(family, attention), structure_of(family)
    ids = random_tokens(2, TOKENS)
    plain = model(ids).logits
    with gated(model, structure, new_gates(structure)):
        assert torch.equal(model(ids).logits, plain)
    for selection in (Selection({}), everything(structure)):
        assert torch.equal(cut(model, structure, selection)(ids).logits, plain)
    assert torch.equal(model(ids).logits, plain), "the hooks stayed, or cut wrote to its input"


@every_family
def test_the_cuts_of_the_table_matter(family: str) -> None:
    ids = random_tokens(2, TOKENS)
    for kind in unit_kinds(family):
        found = smaller(family, kind, "one group emptied")(ids).logits
        assert furthest(found, dense(family)(ids).logits) > 0.1, kind


@every_case
@every_attention
def test_cached_steps_equal_one_forward(family: str, kind: str, name: str, attention: str) -> None:
    model = smaller(family, kind, name, attention)
    ids = random_tokens(2, TOKENS)
    whole = model(ids, use_cache=False).logits
    parts, cache = [], None
    for part in ids.split([11, 4] + [1] * (TOKENS - 15), dim=1):
        out = model(part, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        parts.append(out.logits)
    assert furthest(torch.cat(parts, dim=1), whole) <= TOLERANCE


@every_case
def test_generate_equals_a_loop_without_cache(family: str, kind: str, name: str) -> None:
    model = smaller(family, kind, name)
    ids, mask = random_tokens(len(LEFT_PADDING), TOKENS), left_padded_mask()
    found = model.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    for row, start in enumerate(LEFT_PADDING):
        tokens = ids[row : row + 1, start:]
        for _ in range(5):
            best = model(tokens, use_cache=False).logits[:, -1].argmax(dim=-1, keepdim=True)
            tokens = torch.cat((tokens, best), dim=1)
        assert found[row, start:].tolist() == tokens[0].tolist()
