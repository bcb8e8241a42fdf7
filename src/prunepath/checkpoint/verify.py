"""Read a written model back in a fresh process and compare its answers with those in memory.

The fresh process is what a user has: a stock model is loaded without prunepath at all, any other
after `import prunepath`. Whatever was kept only in this process (a class, a hook, a config patched
by hand) is missing there, and the difference shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunepath.checkpoint import readback
from prunepath.checkpoint.fresh import FreshProcess
from prunepath.data.samples import Samples
from prunepath.errors import ExactnessError

__all__ = ["Verification", "verify_reload"]


@dataclass(frozen=True)
class Verification:
    """What the comparison found.

    Args:
        difference: largest absolute difference between answers.
        allowed: the largest that is accepted where it was found.
        loader: `"transformers"` or `"prunepath"`, what a user needs to load the model.
        samples: samples compared.
    """

    difference: float
    allowed: float
    loader: str
    samples: int


def verify_reload(
    model: Any, folder: Path, samples: Samples, process: FreshProcess
) -> Verification:
    """Compare a saved model with the one in memory.

    Args:
        model: the model in memory, saved before.
        folder: where it was saved.
        samples: what to compare on.
        process: where it is read back; used up.

    Returns:
        The largest difference found, which is within the allowed one.

    Raises:
        ExactnessError: it does not load, or the answers differ.
    """
    expected = readback.answers(model, samples.to(model.device))
    loader = process.loader
    found = process.answers(model, folder, samples)
    if expected.keys() != found.keys() or not expected:
        raise ExactnessError(
            f"the written model, read back in a fresh process with {loader}, answers "
            f"{', '.join(found) or 'nothing'} and the one in memory "
            f"{', '.join(expected) or 'nothing'}; nothing was kept, please report this with the "
            "model's name"
        )
    worst, difference, allowed = _compare(expected, found)
    if not difference <= allowed:
        raise ExactnessError(
            f"the written model, read back in a fresh process, differs from the one in memory by "
            f"{difference:.3g} in its {worst} (allowed: {allowed:.1g}); nothing was kept, please "
            "report this with the model's name"
        )
    return Verification(difference, allowed, loader, len(samples))


def _compare(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> tuple[str, float, float]:
    """The answer that differs most for what is allowed there, by how much, and what is allowed."""
    results = []
    for name, tensor in expected.items():
        ours, theirs = tensor.double(), found[name].double()
        if ours.shape != theirs.shape:
            raise ExactnessError(
                f"the written model, read back in a fresh process, answers {name} of shape "
                f"{tuple(theirs.shape)} where the one in memory answers {tuple(ours.shape)}; "
                "nothing was kept, please report this with the model's name"
            )
        finite = ours[torch.isfinite(ours)]
        scale = max(1.0, float(finite.abs().max()) if finite.numel() else 0.0)
        allowed = scale * (1e-5 if tensor.dtype == torch.float32 else 1e-2)
        gap = torch.where(ours == theirs, 0.0, (ours - theirs).abs())  # infinities may be equal
        difference = float(gap.max()) if gap.numel() else 0.0
        results.append((name, difference, allowed))
    return max(results, key=lambda result: _excess(*result[1:]))


def _excess(difference: float, allowed: float) -> float:
    return float("inf") if difference != difference else difference / allowed
