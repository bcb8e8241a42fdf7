"""Statistics of a model some of whose units are gated to zero, for methods that score step by step.

Gate 0 equals removal, so the sums are those of the cut model, unit by unit of the dense one: no
surgery, and what is gone keeps its place with a gradient of zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from prunepath.data.samples import Samples
from prunepath.methods.method import SearchContext
from prunepath.statistics.collect import Wanted, recording
from prunepath.statistics.run import draw_backward
from prunepath.statistics.sums import Statistics
from prunepath.structure.axes import BoolArray
from prunepath.structure.gates import frozen, gated

__all__ = ["gated_sums"]


def gated_sums(
    context: SearchContext, samples: Samples, wanted: Wanted, keep: Mapping[str, BoolArray]
) -> Statistics:
    """One pass over samples with gates closed.

    Draws are those of a calibration pass over the same samples, whatever is gated.

    Args:
        context: model, structure, task, objective and seed.
        samples: what to run over, in batches of the task.
        wanted: which sums to form.
        keep: group -> which of its units are open, (units,); groups that are absent are.

    Returns:
        The sums.

    Raises:
        NumericsError: an answer is not finite.
    """
    model, structure, task = context.model, context.structure, context.task
    device = next(model.parameters()).device
    gates = {
        name: torch.from_numpy(mask).to(torch.float32)
        for name, mask in keep.items()
        if not mask.all()
    }
    sums = Statistics()
    per_sample = task.loss_rows == "sample"
    with (
        frozen(model),
        gated(model, structure, gates),  # first, so that what is read is what is left
        recording(model, structure, wanted, sums, per_sample=per_sample) as recorder,
    ):
        for index, batch in enumerate(samples.batches(task.counts.batch)):
            recorder.begin(batch)
            if wanted.backward:
                generator = context.generator(index)
                draw_backward(model, task, batch, context.objective, generator, index)
            else:
                with torch.no_grad():
                    task.body(model, batch.to(device))
    return sums
