"""Rows and their distance: padding, seeds, and both forms of the same number."""

from __future__ import annotations

import pytest
import torch

from prunepath.data.samples import Samples
from prunepath.methods.optin import rows as rows_module
from prunepath.methods.optin.batching import trimmed
from prunepath.methods.optin.features import FeatureSite
from prunepath.methods.optin.rows import Teacher, TokenRows, manifold_distance, normalised

SITES = (FeatureSite("a", "output", "a", 0), FeatureSite("b", "input", "a", 1, 2))


def pair(count: int, width: int, size: float, dtype: torch.dtype) -> tuple[torch.Tensor, Teacher]:
    """Rows of a student that is off by about `size`, and its teacher."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(count, width, generator=generator, dtype=torch.float64)
    other = dense + size * torch.randn(count, width, generator=generator, dtype=torch.float64)
    student, teacher = normalised(other), normalised(dense)
    return student.to(dtype), Teacher(teacher.to(dtype))


def by_definition(student: torch.Tensor, teacher: Teacher) -> float:
    own, other = student.double(), teacher.rows.double()
    return float((own @ own.T - other @ other.T).square().sum())


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("shape", [(40, 60), (300, 24)], ids=["relations", "widths"])
def test_both_forms_are_the_definition(shape: tuple[int, int], size: float) -> None:
    student, teacher = pair(*shape, size, torch.float64)
    assert teacher.direct == (shape == (40, 60))
    expected = by_definition(student, teacher)
    for form in (rows_module._from_relations, rows_module._from_widths):
        found = float(form((student - teacher.rows)[None], teacher))
        assert found == pytest.approx(expected, rel=1e-9)
    assert float(manifold_distance(student, teacher)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(40, 60), (300, 24)], ids=["relations", "widths"])
def test_float32_stays_true_at_small_changes(shape: tuple[int, int]) -> None:
    student, teacher = pair(*shape, 1e-4, torch.float32)
    expected = by_definition(student, teacher)
    assert float(manifold_distance(student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_candidates_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = pair(20, 30, 0.1, torch.float64)
    many = torch.stack([student, teacher.rows, student.flip(0)])
    whole = manifold_distance(many, teacher)
    monkeypatch.setattr(rows_module, "_AT_ONCE", 1)
    assert torch.equal(manifold_distance(many, teacher), whole)
    assert whole[1] == 0


def texts() -> Samples:
    mask = torch.ones(3, 8, dtype=torch.int64)
    mask[1, 5:] = 0
    mask[2, 6:] = 0
    ids = torch.arange(24).reshape(3, 8)
    return Samples(inputs={"input_ids": ids, "attention_mask": mask})


def test_padding_is_never_drawn_and_a_seed_says_all() -> None:
    samples = texts()
    features = [torch.zeros(1, 8, 4), torch.zeros(1, 2, 3, 4)]
    draw = [TokenRows.draw(SITES, features, 1, samples, 7, seed) for seed in (0, 0, 1)]
    assert [len(where) for where in draw[0].positions] == [7, 7]
    padding = {8 + 5, 8 + 6, 8 + 7, 16 + 6, 16 + 7}
    assert not padding & set(draw[0].positions[0].tolist())
    assert draw[0].lengths == (8, 6)  # a grid has no padding, and is flattened
    for one, other in zip(draw[0].positions, draw[1].positions, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(draw[0].positions[0], draw[2].positions[0])
    every = TokenRows.draw(SITES, features, 1, samples, 0, 0)
    assert [len(where) for where in every.positions] == [19, 18]


def test_parts_hold_the_rows_of_their_samples() -> None:
    samples = texts()
    rows = TokenRows.draw(SITES[:1], [torch.zeros(1, 8, 4)], 1, samples, 11, 0)
    feature = torch.randn(3, 8, 4)
    parts = [rows.of([start]).rows(0, feature[start : start + 1]) for start in range(3)]
    assert torch.equal(torch.cat(parts), rows.rows(0, feature))
    assert torch.allclose(rows.rows(0, feature).norm(dim=-1), torch.ones(11))


def test_samples_may_be_second() -> None:
    samples = Samples(inputs={"pixel_values": torch.zeros(3, 1)})
    rows = TokenRows.draw(SITES[:1], [torch.zeros(5, 1, 4)], 1, samples, 0, 0)
    feature = torch.randn(5, 3, 4)
    assert torch.equal(rows.rows(0, feature), rows.rows(0, feature.transpose(0, 1)))


def test_the_width_tells_which_mask_counts() -> None:
    """An encoder-decoder has two."""
    samples = texts()
    target = torch.ones(3, 4, dtype=torch.int64)
    target[0, 1:] = 0
    both = Samples(inputs={**samples.inputs, "decoder_attention_mask": target})
    features = [torch.zeros(1, 8, 4), torch.zeros(1, 4, 4)]
    rows = TokenRows.draw(SITES, features, 1, both, 0, 0)
    assert [len(where) for where in rows.positions] == [19, 9]


def test_texts_are_cut_to_the_longest_on_the_right_only() -> None:
    samples = texts().rows(1, 3)
    cut = trimmed(samples)
    assert {name: tuple(value.shape) for name, value in cut.inputs.items()} == {
        "input_ids": (2, 6),
        "attention_mask": (2, 6),
    }
    left = {name: value.flip(1) for name, value in samples.inputs.items()}
    assert trimmed(Samples(inputs=left)).inputs["input_ids"].shape == (2, 8)
