"""A path and its dense model, opened once: the place where any number of sizes are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.api.repair import make_room_for_biases_, repair_
from prunepath.api.stated import LENGTH, stated_for
from prunepath.api.supplies import Supplies, read_supplies
from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.allocation.allocate import Allocation
    from prunepath.allocation.budget import Budget
    from prunepath.checkpoint.fresh import FreshProcess
    from prunepath.checkpoint.verify import Verification
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.structure.selection import Selection
    from prunepath.tasks.task import Task

__all__ = ["REFITS", "Extraction", "Workshop"]

REFITS = ("sequential", "moments", "bias", "none")


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What an extraction made.

    Args:
        allocation: the selection, what it costs and what was asked.
        model: the cut model in memory.
        folder: where it was written; None when it was kept in memory.
        refit: what the refit did, name -> value.
        verification: the comparison after reloading; None when nothing was written.
        seconds: wall seconds of every stage.
        latency_seconds: measured seconds of one forward pass, for latency budgets.
        stated_for: what MACs are counted over, in words: `"512 tokens"`, `"one sample"`.
        task: name of the task.
    """

    allocation: Allocation
    model: Any
    folder: Path | None
    refit: Mapping[str, Any]
    verification: Verification | None
    seconds: Mapping[str, float]
    latency_seconds: float | None = None
    stated_for: str = f"{LENGTH} tokens"
    task: str = "causal-lm"


class Workshop:
    """A path and its dense model, opened once, from which any number of sizes are made."""

    def __init__(
        self,
        path: str | Path | SolutionPath,
        *,
        layout: str = "per-layer",
        kinds: Sequence[str] = (),
        multiple: int = 8,
        floor: int | str = 8,
        sequence_length: int | None = None,
        refit: str = "sequential",
        bias: bool = False,
        progress: Progress | None = None,
    ) -> None:
        from prunepath.allocation.steps import StepOptions
        from prunepath.path import SolutionPath

        self.path = path if isinstance(path, SolutionPath) else SolutionPath.from_pretrained(path)
        self.options = StepOptions(
            layout=layout,
            kinds=tuple(kinds),
            multiple=multiple,
            floor=floor,
            sequence_length=LENGTH if sequence_length is None else sequence_length,
        )
        if refit not in REFITS:
            raise RequestError(f"unknown refit '{refit}'; use one of {', '.join(REFITS)}")
        self.refit = refit
        self.bias = bias
        self.progress = progress
        self._opened: Any = None
        self._supplies: Any = None

    def open(self, model: Any = None, **how: Any) -> None:
        """Load the dense model and check that the path belongs to it.

        Raises:
            PathFileError: other weights.
        """
        from prunepath.checkpoint.source import fingerprint, open_model
        from prunepath.surgery.experts import unfuse_experts_

        source = self.path.provenance.model_id if model is None else model
        self._opened = open_model(source, task=self.path.provenance.task, **how)
        self.path.check_weights(fingerprint(self._opened.model), self._opened.model_id)
        unfuse_experts_(self._opened.model)  # as it was searched

    def borrow(self, other: Workshop) -> None:
        """Use the dense model and statistics another workshop has already opened."""
        self._opened, self._supplies = other._opened, other._supplies

    @property
    def dense(self) -> Any:
        """The dense model."""
        return self._opened.model

    @property
    def opened(self) -> Any:
        """The dense model with its task and what reads its data (`checkpoint.source`)."""
        return self._opened

    @property
    def task(self) -> Task:
        """What the model is used for."""
        task: Task = self._opened.task
        return task

    def allocate(self, budget: Budget) -> Allocation:
        """What would be cut, without cutting; latency budgets need the opened model."""
        from prunepath.allocation.allocate import allocate

        return allocate(
            self.path,
            budget,
            self.options,
            latency_of=self._latency_of() if budget.metric == "latency" else None,
        )

    def make(
        self, budget: Budget, output: str | Path | None = None, *, overwrite: bool = False
    ) -> Extraction:
        """Cut, repair, write and check one size."""
        from prunepath.checkpoint.fresh import FreshProcess
        from prunepath.checkpoint.save import is_stock
        from prunepath.progress import note
        from prunepath.surgery.cut import cut
        from prunepath.surgery.experts import fuse_experts_

        clock = _Clock()
        allocation = self.allocate(budget)
        note(self.progress, str(allocation))
        clock.lap("allocate")
        supplies = self._load_supplies()
        clock.lap("read statistics")
        model: Any = cut(self.dense, self.path.structure, allocation.selection)
        added = make_room_for_biases_(
            model, self.path.structure, allocation.selection, kind=self.refit, bias=self.bias
        )
        clock.lap("cut")
        stock = is_stock(model)
        loader = "stock transformers" if stock else "prunepath (import prunepath first)"
        note(self.progress, f"the result loads with {loader}")
        refit: dict[str, Any] = {"kind": "none"}
        verification = None
        with ExitStack() as stack:
            # It imports what loading takes while the repair is computed here.
            reader = None if output is None else stack.enter_context(FreshProcess(stock=stock))
            if supplies is not None:
                refit = repair_(
                    model,
                    self.dense,
                    self.path.structure,
                    allocation.selection,
                    self.task,
                    supplies,
                    kind=self.refit,
                    bias=self.bias,
                )
            if added:
                refit = {**refit, "numbers added": added}
            fuse_experts_(model)
            clock.lap("refit")
            if output is not None and reader is not None:
                folder = Path(output)
                verification = self._write(model, allocation, refit, folder, overwrite, reader)
                clock.lap("write and verify")
        seconds = None
        if budget.metric == "latency":
            from prunepath.evaluation.latency import forward_seconds

            seconds = forward_seconds(model, self.task, self.options.sequence_length)
            clock.lap("measure latency")
        return Extraction(
            allocation=allocation,
            model=model,
            folder=None if output is None else Path(output),
            refit=refit,
            verification=verification,
            seconds=clock.laps,
            latency_seconds=seconds,
            stated_for=stated_for(self.path.structure, self.options.sequence_length),
            task=self.task.name,
        )

    def _latency_of(self) -> Callable[[Selection], float]:
        from prunepath.evaluation.latency import latency_table

        table = latency_table(
            self.dense, self.task, self.options.sequence_length, progress=self.progress
        )
        return lambda selection: table.seconds(self.path.structure, selection)

    def _load_supplies(self) -> Supplies | None:
        """Statistics and calibration samples beside the path, read once."""
        if self.refit == "none":
            return None
        if self._supplies is None:
            sequential = self.refit == "sequential"
            self._supplies = read_supplies(self.path, self.task, sequential=sequential)
        found: Supplies = self._supplies
        return found

    def _write(
        self,
        model: Any,
        allocation: Allocation,
        refit: Mapping[str, Any],
        output: Path,
        overwrite: bool,
        reader: FreshProcess,
    ) -> Verification:
        from prunepath.checkpoint.card import model_card
        from prunepath.checkpoint.save import save_model
        from prunepath.checkpoint.verify import verify_reload
        from prunepath.files import atomic_directory

        samples = self.task.dummy(model, 1)
        with atomic_directory(output, overwrite=overwrite) as folder:
            save_model(
                model,
                self._opened.tokenizer,
                folder,
                processor=self._opened.processor,
                image_settings=self._opened.image_settings,
            )
            verification = verify_reload(model, folder, samples, reader)
            card = model_card(
                allocation,
                self.path.provenance,
                loader=verification.loader,
                refit=refit,
                difference=verification.difference,
                folder_name=output.name,
                model=model,
                opened=self._opened,
                stated_for=stated_for(self.path.structure, self.options.sequence_length),
            )
            (folder / "README.md").write_text(card, encoding="utf-8")
        return verification


class _Clock:
    """Wall seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
