"""What is fixed before a unit is removed: samples, features, rows, and what the dense model says.

One set of samples serves all candidates. Texts are cut to the longest of them, and where one pass
over all would be too large they run in parts of equal length, whose rows are put together again.

Shapes: B samples, K rows, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.methods.method import SearchContext
from prunepath.methods.optin.config import OptinConfig
from prunepath.methods.optin.features import Trajectory, find_trajectory, reading
from prunepath.methods.optin.rows import Teacher, TokenRows
from prunepath.methods.optin.tape import CallTape

__all__ = ["Part", "Scene", "repeated", "trimmed"]

_ANSWER = 2**27
"""Elements of an answer in one pass: a large vocabulary is wider than all features together."""
_ROWS = {"cpu": 2**12}
"""Rows of one pass where no number is given; on a CPU more of them leave the cache (minilm-l6: a
removal in the first layer costs 0.85 to 0.94 of a plain pass below 6,000 rows, 1.25 at 32,000)."""
_ROWS_ELSEWHERE = 2**15
_MASKS = ("attention_mask", "decoder_attention_mask")


@dataclass(frozen=True, eq=False)
class Part:
    """Samples that run in one pass, and what the dense model makes of them.

    Args:
        samples: the samples.
        rows: which rows of their features are compared.
        answer: the dense answer.
    """

    samples: Samples
    rows: TokenRows
    answer: Tensor


@dataclass(frozen=True, eq=False)
class Scene:
    """All of it; see `Scene.of`.

    Args:
        context: what the method was given.
        config: its settings.
        samples: the samples that are scored.
        trajectory: the features.
        once, twice: passes over one sample and over that sample twice: where shapes differ between
            them is where samples lie.
        rows: which rows of the features are compared.
    """

    context: SearchContext
    config: OptinConfig
    samples: Samples
    trajectory: Trajectory
    once: CallTape
    rows: TokenRows
    answer_size: int

    @property
    def twice(self) -> CallTape:
        """The pass over one sample twice."""
        return self.trajectory.tape

    @classmethod
    def of(cls, context: SearchContext, config: OptinConfig) -> Scene:
        """Look at the model once and draw the rows.

        Args:
            context: the model must be frozen and in evaluation mode.
            config: `samples`, `tokens` and `candidates_tokens` are read.

        Raises:
            DataError: there is nothing to relate (`TokenRows.draw`).
        """
        samples = trimmed(context.samples.rows(0, min(config.samples, len(context.samples))))
        device = next(context.model.parameters()).device
        one = samples.rows(0, 1).to(device)
        two = repeated(one, 2)
        task, model = context.task, context.model
        sizes: list[int] = []

        def run(inputs: Mapping[str, Tensor]) -> None:
            sizes.append(task.output(model, inputs).numel())

        with torch.no_grad():
            trajectory = find_trajectory(model, context.structure, lambda: run(two))
            once = CallTape.record(model, lambda: run(one))
            with reading(model, trajectory.sites) as features:
                run(one)
        rows = TokenRows.draw(
            trajectory.sites, features, 1, samples, config.tokens, seed=context.seed
        )
        return cls(context, config, samples, trajectory, once, rows, sizes[-1])

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.context.model.parameters()).device

    @property
    def rows_at_once(self) -> int:
        """Rows of one pass."""
        usual = _ROWS.get(self.device.type, _ROWS_ELSEWHERE)
        return self.config.candidates_tokens or usual

    @property
    def longest(self) -> int:
        """Rows of one sample in the longest feature."""
        return max(self.rows.lengths)

    @property
    def samples_at_once(self) -> int:
        """Samples of one pass."""
        most = min(self.rows_at_once // self.longest, _ANSWER // self.answer_size)
        passes = -(-len(self.samples) // max(1, most))
        return -(-len(self.samples) // passes)

    @property
    def candidates_at_once(self) -> int:
        """Removals folded into one pass."""
        tokens = self.samples_at_once * self.longest
        answers = self.samples_at_once * self.answer_size
        return max(1, min(self.rows_at_once // tokens, _ANSWER // answers))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The samples in parts, with the dense answers."""
        return self._dense[0]

    @cached_property
    def teachers(self) -> tuple[Teacher, ...]:
        """The dense rows of every feature."""
        return self._dense[1]

    @cached_property
    def _dense(self) -> tuple[tuple[Part, ...], tuple[Teacher, ...]]:
        context, sites = self.context, self.trajectory.sites
        size, parts = self.samples_at_once, []
        rows: list[list[Tensor]] = [[] for _ in sites]
        for number, samples in enumerate(self.samples.batches(size)):
            start = number * size
            own = self.rows.part(start, start + len(samples))
            with torch.no_grad(), reading(context.model, sites, own.rows) as features:
                answer = context.task.output(context.model, samples.to(self.device))
            parts.append(Part(samples, own, answer.detach()))
            for kept, feature in zip(rows, features, strict=True):
                kept.append(feature)
        return tuple(parts), tuple(Teacher(torch.cat(kept)) for kept in rows)

    def weight(self, samples: Samples) -> int:
        """Loss rows of some samples: what their mean distance counts for."""
        return samples.num_tokens if self.context.task.loss_rows == "token" else len(samples)


def repeated(inputs: Mapping[str, Tensor], times: int) -> dict[str, Tensor]:
    """Model inputs with all samples once per candidate, candidate by candidate."""
    return {
        name: value.repeat(times, *[1] * (value.ndim - 1)) if times > 1 else value
        for name, value in inputs.items()
    }


def trimmed(samples: Samples) -> Samples:
    """Without the columns on the right that are padding in every sample.

    What is padded on the left stays: some models count positions from there.
    """
    inputs = dict(samples.inputs)
    for name in _MASKS:
        mask = inputs.get(name)
        if mask is None or mask.ndim != 2 or not mask.any():
            continue
        width = int(mask.any(0).nonzero().max()) + 1
        side = name.partition("attention_mask")[0]
        for other, value in inputs.items():
            same_side = other.startswith("decoder_") == bool(side)
            if same_side and value.ndim == 2 and value.shape[1] == mask.shape[1]:
                inputs[other] = value[:, :width]
    return replace(samples, inputs=inputs, fingerprint=samples.fingerprint)
