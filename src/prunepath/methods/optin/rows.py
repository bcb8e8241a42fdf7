"""Which rows of the features are compared, and how far two sets of rows are apart.

The manifold distance compares relations: with rows of length 1, student F_s and teacher F_t,

    L_MD = || F_s F_s^T - F_t F_t^T ||_F^2

(the random-sampled relation of Hao et al. 2022, summed as OPTIN's configurations do). Deviations
from the released code: the rows are drawn once per feature, the same for all candidates and for
teacher and student, and padding is left out.

Single removals change F by a thousandth and less, so the two Gram matrices are never formed and
subtracted. With D = F_s - F_t their difference is P + P^T, P = D (F_t + D/2)^T: one product of
K^2 d. Where that is dearer than products of width d,

    L_MD = 2 tr(A B) + 2 tr(C C) + 4 tr(C B) + ||B||^2,  A = F_t^T F_t, B = D^T D, C = F_t^T D,

which costs 2 K d^2 and no memory of size K^2.

Shapes: B samples, n positions of a sample, K rows, d width, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.errors import DataError
from prunepath.methods.optin.batching import MASKS
from prunepath.methods.optin.features import FeatureSite

__all__ = ["Teacher", "TokenRows", "manifold_distance", "normalised"]

_AT_ONCE = 2**25
"""Elements of (C, K, K) or (C, d, d) formed at once."""


def normalised(rows: Tensor) -> Tensor:
    """Rows (..., d) brought to length 1, in float32 (float64 where they are)."""
    wide = rows if rows.dtype == torch.float64 else rows.float()
    return torch.nn.functional.normalize(wide, dim=-1)


@dataclass(frozen=True, eq=False)
class TokenRows:
    """The rows of every feature that are compared; positions count sample by sample.

    Args:
        positions: per feature which of the B n rows, ascending, int64 (K,).
        lengths: per feature n.
        samples: B.
    """

    positions: tuple[Tensor, ...]
    lengths: tuple[int, ...]
    samples: int

    @classmethod
    def draw(
        cls,
        sites: Sequence[FeatureSite],
        features: Sequence[Tensor],
        ran: int,
        samples: Samples,
        tokens: int,
        seed: int,
    ) -> TokenRows:
        """Draw rows once for all that follows.

        Args:
            sites: the features.
            features: what they looked like in a pass over some samples.
            ran: how many samples those were.
            samples: those that are to be compared, all of one length; their attention masks mark
                padding, told apart by width where a model has two.
            tokens: K; 0 takes all rows that are no padding, and so does any K above their number.
            seed: of the draw.

        Raises:
            DataError: a feature has fewer than two rows, so there is nothing to relate.
        """
        positions, lengths = [], []
        for index, (site, feature) in enumerate(zip(sites, features, strict=True)):
            length = by_sample(feature, ran).shape[1]
            real = _real_rows(samples, length)
            if len(real) < 2:
                raise DataError(
                    f"the feature '{site.name}' has {len(real)} rows over {len(samples)} samples, "
                    "and OPTIN compares rows with each other; give more samples (--windows), or "
                    "longer ones"
                )
            if 0 < tokens < len(real):
                generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
                chosen = torch.randperm(len(real), generator=generator)[:tokens]
                real = real[chosen.sort().values]
            positions.append(real)
            lengths.append(length)
        return cls(tuple(positions), tuple(lengths), len(samples))

    def of(self, samples: Sequence[int]) -> TokenRows:
        """The rows of some samples alone, as they lie when those run in this order."""
        place = torch.full((self.samples,), -1, dtype=torch.int64)
        place[list(samples)] = torch.arange(len(samples))
        positions = []
        for where, length in zip(self.positions, self.lengths, strict=True):
            sample = place[where // length]
            inside = (sample * length + where % length)[sample >= 0]
            positions.append(inside.sort().values)
        return replace(self, positions=tuple(positions), samples=len(samples))

    def shortened(self, widths: Mapping[int, int]) -> TokenRows:
        """The same rows in samples that lost columns on the right, none of them compared.

        Args:
            widths: positions of a sample -> how many of them are left.
        """
        kept = [widths.get(length, length) for length in self.lengths]
        positions = [
            where // old * new + where % old
            for where, old, new in zip(self.positions, self.lengths, kept, strict=True)
        ]
        return replace(self, positions=tuple(positions), lengths=tuple(kept))

    def rows(self, index: int, feature: Tensor) -> Tensor:
        """The rows of one feature, (K, d), of length 1; differentiable.

        Args:
            index: which feature.
            feature: as the model has it, usually (B, n, d).
        """
        return self.folded(index, feature, 1)[0]

    def folded(self, index: int, feature: Tensor, candidates: int) -> Tensor:
        """The same of a pass over samples repeated once per candidate, (C, K, d)."""
        flat = by_sample(feature, candidates * self.samples)
        flat = flat.reshape(candidates, -1, feature.shape[-1])
        return normalised(flat.index_select(1, self.positions[index].to(feature.device)))


def by_sample(feature: Tensor, samples: int) -> Tensor:
    """A feature as (B, n, d): grids are flattened, and samples brought to the front."""
    shape = feature.shape
    if shape[0] != samples and samples in shape[1:-1]:  # queries first, samples second
        feature = feature.movedim(shape.index(samples), 0)
    return feature.reshape(samples, -1, shape[-1])


def _real_rows(samples: Samples, length: int) -> Tensor:
    for name in MASKS:
        mask = samples.inputs.get(name)
        if mask is not None and mask.shape == (len(samples), length):
            return mask.bool().flatten().nonzero().flatten()
    return torch.arange(len(samples) * length)


@dataclass(frozen=True, eq=False)
class Teacher:
    """The dense model's rows of one feature, with what all candidates share.

    Args:
        rows: (K, d), of length 1.
    """

    rows: Tensor

    @cached_property
    def gram(self) -> Tensor:
        """F_t^T F_t, (d, d)."""
        return self.rows.T @ self.rows

    @property
    def direct(self) -> bool:
        """Whether the K x K form is the cheaper one."""
        count, width = self.rows.shape
        return count <= 2 * width


def manifold_distance(students: Tensor, teacher: Teacher) -> Tensor:
    """L_MD of each candidate (Frobenius norm squared, summed over all K x K relations).

    Args:
        students: rows of length 1, (C, K, d) or (K, d).
        teacher: the dense rows.

    Returns:
        (C,) or a scalar; at least 0, differentiable.

    Example:
        >>> dense = normalised(torch.eye(2))
        >>> float(manifold_distance(torch.flip(dense, [0]), Teacher(dense)))
        0.0
    """
    if students.ndim == 2:
        return manifold_distance(students[None], teacher)[0]
    count, width = teacher.rows.shape
    size = count if teacher.direct else width
    step = max(1, _AT_ONCE // size**2)
    form = _from_relations if teacher.direct else _from_widths
    return torch.cat([form(part - teacher.rows, teacher) for part in torch.split(students, step)])


def _from_relations(change_CKd: Tensor, teacher: Teacher) -> Tensor:
    half = change_CKd @ (teacher.rows + change_CKd / 2).transpose(-1, -2)
    return (half + half.transpose(-1, -2)).square().sum((-1, -2))


def _from_widths(change_CKd: Tensor, teacher: Teacher) -> Tensor:
    own = change_CKd.transpose(-1, -2) @ change_CKd
    cross = teacher.rows.T @ change_CKd
    total = (
        2 * (teacher.gram * own).sum((-1, -2))
        + 2 * (cross * cross.transpose(-1, -2)).sum((-1, -2))
        + 4 * (cross.transpose(-1, -2) * own).sum((-1, -2))
        + own.square().sum((-1, -2))
    )
    return total.clamp(min=0)  # its terms cancel down to rounding
