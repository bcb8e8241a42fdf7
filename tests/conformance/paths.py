"""Random solution paths: allocation and the file format must hold for every order."""

from __future__ import annotations

import numpy as np

from prunepath.path import Provenance, SolutionPath
from prunepath.structure.units import Structure

PROVENANCE = Provenance(
    method="random",
    method_config={"seed": 0},
    model_id="tiny",
    model_fingerprint="0123456789abcdef" * 4,
    data="none",
    data_fingerprint="fedcba9876543210" * 4,
    objective="kl",
    seed=0,
    library_version="0.0.0",
    tokens=0,
)


def random_path(structure: Structure, seed: int = 0) -> SolutionPath:
    """A path whose order and damages are random and agree: what goes first does least damage."""
    rng = np.random.default_rng(seed)
    sizes = {group.name: group.num_units for group in structure.groups}
    total = sum(sizes.values())
    rank = rng.permutation(total)
    by_rank = np.sort(rng.gamma(0.5, size=total))[::-1]
    times = np.sort(rng.random(total))
    cuts = np.cumsum(list(sizes.values()))[:-1]

    def by_group(flat: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(sizes, np.split(flat, cuts), strict=True))

    return SolutionPath(
        structure=structure,
        damage=by_group(by_rank[rank]),
        entry_time=by_group(times[rank]),
        rank=by_group(rank),
        provenance=PROVENANCE,
    )
