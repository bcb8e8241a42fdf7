"""What is fixed before a unit is removed: samples, features, rows, and what the dense model says.

One set of samples serves all candidates. Texts run in parts, each cut to the longest of its own
(`batching.py`); so do samples that are too many for one pass. Their rows are put together again.
Before texts run shorter than they came, that this changes no answer is tried out on the model.

Shapes: B samples, K rows, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.methods.method import SearchContext
from prunepath.methods.optin.batching import by_length, lengths, masks_of, trimmed
from prunepath.methods.optin.config import OptinConfig
from prunepath.methods.optin.features import Trajectory, find_trajectory, reading
from prunepath.methods.optin.rows import Teacher, TokenRows
from prunepath.methods.optin.tape import CallTape
from prunepath.progress import note

__all__ = ["Part", "Scene", "repeated"]

_ANSWER = 2**27
"""Elements of an answer in one pass: a large vocabulary is wider than all features together."""
_ROWS = {"cpu": 2**12}
"""Rows of one pass where no number is given; on a CPU more of them leave the cache (minilm-l6: a
removal in the first layer costs 0.85 to 0.94 of a plain pass below 6,000 rows, 1.25 at 32,000)."""
_ROWS_ELSEWHERE = 2**15
_NO_LABEL = -100
_ALLOWED = {torch.float32: 1e-4, torch.float64: 1e-8}
_ALLOWED_ROUNDED = 5e-2  # bfloat16 and float16 round every activation


@dataclass(frozen=True, eq=False)
class Part:
    """Samples that run in one pass, and what the dense model makes of them.

    Args:
        ids: which of the scene's samples.
        samples: the samples.
        rows: which rows of their features are compared.
        answer: the dense answer.
    """

    ids: Sequence[int]
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
        answer_size: numbers in the answer to one sample.
        together: the answer to a sample depends on those it runs with (images with texts).
        shortens: texts may lose the padding that all texts of a pass have.
    """

    context: SearchContext
    config: OptinConfig
    samples: Samples
    trajectory: Trajectory
    once: CallTape
    rows: TokenRows
    answer_size: int
    together: bool
    shortens: bool

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
        together = sizes[0] != 2 * sizes[-1]
        found = cls(context, config, samples, trajectory, once, rows, sizes[-1], together, True)
        return found if found._may_shorten() else replace(found, shortens=False)

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
        """Samples of one pass, whatever their length."""
        passes = -(-len(self.samples) // max(1, min(self.rows_at_once // self.longest, self._most)))
        return -(-len(self.samples) // passes)

    @property
    def _most(self) -> int:
        """Samples of one pass whose answers are not too large."""
        return max(1, _ANSWER // self.answer_size)

    @property
    def candidates_at_once(self) -> int:
        """Removals folded into one pass of the smallest part, as far as their rows find room."""
        compared = max(len(where) for where in self.rows.positions)
        room = 2 * self.rows_at_once // compared
        return max(1, min(room, max(self.folds(part) for part in self.parts)))

    def folds(self, part: Part) -> int:
        """Removals folded into one pass of a part."""
        rows = len(part.samples) * max(part.rows.lengths)
        return max(1, min(self.rows_at_once // rows, _ANSWER // part.answer.numel()))

    def batch(self, ids: Sequence[int]) -> tuple[Samples, TokenRows]:
        """Some samples as they run together, and which rows of their features are compared."""
        samples, rows = self.samples.chosen(ids), self.rows.of(ids)
        if not self.shortens:
            return samples, rows
        short = trimmed(samples)
        widths = {
            mask.shape[1]: short.inputs[name].shape[1] for name, mask in masks_of(samples).items()
        }
        return short, rows.shortened(widths)

    def divided(self) -> list[list[int]]:
        """Which samples run together."""
        if self.shortens:
            return by_length(lengths(self.samples), self.rows_at_once, self._most)
        size, count = self.samples_at_once, len(self.samples)
        return [list(range(i, min(i + size, count))) for i in range(0, count, size)]

    def _may_shorten(self) -> bool:
        """Whether texts differ in length, every feature has a row a position, and the shortest text
        is answered the same without its padding."""
        masks, found = masks_of(self.samples), lengths(self.samples)
        widths = {mask.shape[1] for mask in masks.values()}
        if self.together or not set(self.rows.lengths) <= widths or len(widths) < len(masks):
            return False
        if min(found) == max(found):
            return False
        shortest = [found.index(min(found))]
        padded = (self.samples.chosen(shortest), self.rows.of(shortest))
        runs = []
        for samples, rows in (padded, self.batch(shortest)):
            with reading(self.context.model, self.trajectory.sites, rows.rows) as features:
                answer = self.context.task.output(self.context.model, samples.to(self.device))
            runs.append([answer, *features])
        worst = max(_difference(one, other) for one, other in zip(*runs, strict=True))
        dtype = next(self.context.model.parameters()).dtype
        if worst <= _ALLOWED.get(dtype, _ALLOWED_ROUNDED):
            return True
        note(
            self.context.progress,
            "texts are padded to the longest of all, because this model answers otherwise where "
            f"there is less padding: by {worst:.2g}",
        )
        return False

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
        parts = []
        rows: list[list[Tensor]] = [[] for _ in sites]
        for ids in self.divided():
            samples, own = self.batch(ids)
            with torch.no_grad(), reading(context.model, sites, own.rows) as features:
                answer = context.task.output(context.model, samples.to(self.device))
            parts.append(Part(ids, samples, own, answer.detach()))
            for kept, feature in zip(rows, features, strict=True):
                kept.append(feature)
        return tuple(parts), tuple(Teacher(torch.cat(kept)) for kept in rows)

    @cached_property
    def whole(self) -> Part | None:
        """All parts as one, where an answer is a few numbers a sample: a task that compares samples
        with each other compares all of them. None: parts are compared one by one."""
        parts = self.parts
        by_token = self.context.task.loss_rows == "token"
        if self.together or by_token or parts[0].answer.ndim != 2:
            return None
        ids = [sample for part in parts for sample in part.ids]
        answer = torch.cat([part.answer for part in parts])
        return Part(ids, self.samples.chosen(ids), self.rows, answer)

    def share(self, part: Part) -> float:
        """What the mean distance of a part counts for in that of all."""
        return self.weight(part.samples) / sum(self.weight(other.samples) for other in self.parts)

    def weight(self, samples: Samples) -> int:
        """Loss rows of some samples: what their mean distance counts for."""
        if self.context.task.loss_rows == "sample":
            return len(samples)
        written = samples.inputs.get("decoder_attention_mask")
        if written is not None:
            return int(written.sum())
        if samples.labels is not None and samples.labels.ndim == 2:  # some tokens are hidden
            return int((samples.labels != _NO_LABEL).sum())
        return samples.num_tokens


def repeated(inputs: Mapping[str, Tensor], times: int) -> dict[str, Tensor]:
    """Model inputs with all samples once per candidate, candidate by candidate."""
    return {
        name: value.repeat(times, *[1] * (value.ndim - 1)) if times > 1 else value
        for name, value in inputs.items()
    }


def _difference(padded: Tensor, short: Tensor) -> float:
    """Largest one between two answers, where the shorter one has numbers; relative above 1."""
    for axis, size in enumerate(short.shape):
        padded = padded.narrow(axis, 0, size)
    worst = float((short - padded).abs().max()) / max(1.0, float(padded.abs().max()))
    return worst if worst == worst else float("inf")
