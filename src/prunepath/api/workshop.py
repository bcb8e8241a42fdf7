"""A path and its dense model, opened once: the place where any number of sizes are made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.api.choosing import Chooser
from prunepath.api.exchange import Rearranger
from prunepath.api.recipes import settled
from prunepath.api.repair import make_room_for_biases_, most_biases, repair_, require_refit
from prunepath.api.stated import LENGTH, stated_for
from prunepath.api.supplies import Supplies, read_supplies
from prunepath.api.swapping import Swapper
from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.allocation.allocate import Allocation, LatencyOf
    from prunepath.allocation.budget import Budget
    from prunepath.checkpoint.fresh import FreshProcess
    from prunepath.checkpoint.verify import Verification
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.tasks.task import Task

__all__ = ["Extraction", "Workshop", "taken_sentence"]


def taken_sentence(recipe: str, taken: Mapping[str, Any]) -> str:
    """What a recipe settled, in words.

    Example:
        >>> taken_sentence("magnitude", {"refit": "none"})
        "taken from the recipe 'magnitude': refit none"
    """
    words = [f"{name} {_in_words(value)}" for name, value in taken.items()]
    return f"taken from the recipe '{recipe}': {', '.join(words)}"


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return ",".join(value) if isinstance(value, list | tuple) else str(value)


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
        rearranged: what the rearrangement did, name -> value; empty where none was asked for.
        latency_seconds: measured seconds of one forward pass, for latency budgets.
        stated_for: what MACs are counted over, in words: `"512 tokens"`, `"one sample"`.
        task: name of the task.
        taken: what the path's recipe settled, option -> value.
    """

    allocation: Allocation
    model: Any
    folder: Path | None
    refit: Mapping[str, Any]
    verification: Verification | None
    seconds: Mapping[str, float]
    rearranged: Mapping[str, float] = field(default_factory=dict)
    latency_seconds: float | None = None
    stated_for: str = f"{LENGTH} tokens"
    task: str = "causal-lm"
    taken: Mapping[str, Any] = field(default_factory=dict)


class Workshop:
    """A path and its dense model, opened once, from which any number of sizes are made."""

    def __init__(
        self,
        path: str | Path | SolutionPath,
        *,
        layout: str | None = None,
        kinds: Sequence[str] | None = None,
        multiple: int | None = None,
        floor: int | str | None = None,
        sequence_length: int | None = None,
        refit: str | None = None,
        bias: bool | None = None,
        rule: str | None = None,
        rule_set: Mapping[str, Any] | None = None,
        rearrange: bool | str | None = None,
        token_share: float = 0.0,
        token_decay: float = 1.0,
        token_schedule: Sequence[int] | str = (),
        progress: Progress | None = None,
    ) -> None:
        from prunepath.allocation.rules import MEASURING
        from prunepath.allocation.steps import StepOptions
        from prunepath.api.merging import token_options
        from prunepath.path import SolutionPath
        from prunepath.progress import note

        self.path = path if isinstance(path, SolutionPath) else SolutionPath.from_pretrained(path)
        given: dict[str, Any] = {
            "layout": layout,
            "kinds": kinds or None,
            "multiple": multiple,
            "floor": floor,
        }
        given |= {"rule": rule, "rule_set": rule_set or None, "rearrange": rearrange}
        given |= {"refit": refit, "bias": bias}
        options, self.taken = settled(self.path.provenance.recipe, given)
        self.options = StepOptions(
            layout=options["layout"],
            kinds=tuple(options["kinds"]),
            multiple=options["multiple"],
            floor=options["floor"],
            sequence_length=LENGTH if sequence_length is None else sequence_length,
            rule=options["rule"],
            rule_set=options["rule_set"],
        )
        self.measures = self.options.rule in MEASURING
        self.tokens = token_options(token_share, token_decay, token_schedule)
        if self.measures and self.tokens:
            raise RequestError(
                f"the rule '{self.options.rule}' measures the model with all its tokens, and "
                "merging some was asked for, too; use --rule order, or leave the tokens alone"
            )
        self.refit, self.bias = options["refit"], options["bias"]
        self.rearrange: str = options["rearrange"]
        require_refit(self.refit, bias=self.bias)
        self.progress = progress
        self._site: Any = None
        if self.taken:
            note(progress, taken_sentence(self.path.provenance.recipe["name"], self.taken))
        self._opened: Any = None
        self._supplies: Any = None

    def open(self, model: Any = None, **how: Any) -> None:
        """Load the dense model and check that the path belongs to it.

        Raises:
            PathFileError: other weights.
            RequestError: tokens are to merge, and in this model they cannot.
        """
        from prunepath.api.merging import token_site
        from prunepath.checkpoint.source import fingerprint, open_model
        from prunepath.surgery.experts import unfuse_experts_
        from prunepath.surgery.record import require_unmerged

        source = self.path.provenance.model_id if model is None else model
        self._opened = open_model(source, task=self.path.provenance.task, **how)
        require_unmerged(self._opened.model)
        self.path.check_weights(fingerprint(self._opened.model), self._opened.model_id)
        if self.tokens:
            self._site = token_site(self._opened.model, self.task, self.path.structure)
        unfuse_experts_(self._opened.model)  # as it was searched

    def adopt(self, opened: Any, supplies: Supplies | None) -> None:
        """Use a dense model that is open and known to be the path's, and what its refit needs.

        Args:
            opened: the model as it was searched (`api.calibration.DenseModel.opened`).
            supplies: statistics and samples; None reads them beside the path when they are needed.
        """
        self._opened, self._supplies = opened, supplies

    def borrow(self, other: Workshop) -> None:
        """Use the dense model and statistics another workshop has already opened."""
        self._opened, self._supplies = other._opened, other._supplies

    @property
    def supplies(self) -> Supplies | None:
        """What the refit rests on, once it was read or adopted."""
        found: Supplies | None = self._supplies
        return found

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

    def foresee(self, budget: Budget) -> Allocation:
        """What would be cut as far as the path alone tells: whether a budget can be met, and how
        large the result is. Rules that measure then choose among models of that size."""
        from prunepath.allocation.allocate import allocate
        from prunepath.allocation.rules import require_rule

        options = self.options
        require_rule(options.rule, options.layout, budget.metric)
        if self.measures:
            options = replace(options, rule="order", rule_set={})
        biases = most_biases(self.path.structure, kind=self.refit, bias=self.bias)
        return allocate(self.path, budget, options, biases=biases)

    def allocate(self, budget: Budget) -> Allocation:
        """What would be cut, without cutting; latency budgets, token merging and rules that measure
        need the opened model."""
        from prunepath.allocation.allocate import allocate
        from prunepath.allocation.merging import allocate_merging
        from prunepath.allocation.rules import require_rule

        require_rule(self.options.rule, self.options.layout, budget.metric)
        latency_of = self._latency_of() if budget.metric == "latency" else None
        if not self.tokens:
            biases = most_biases(self.path.structure, kind=self.refit, bias=self.bias)
            return allocate(
                self.path,
                budget,
                self.options,
                latency_of=latency_of,
                biases=biases,
                choose=self._chooser if self.measures else None,
            )
        assert self._site is not None, "token merging needs the opened model"
        return allocate_merging(
            self.path,
            budget,
            self.options,
            self.tokens,
            self._site,
            latency_of=latency_of,
            scores=self._token_scores if self.tokens.scored else None,
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
        from prunepath.surgery.merging import merge_tokens_

        clock = _Clock()
        allocation = self.allocate(budget)
        note(self.progress, str(allocation))
        clock.lap("allocate")
        supplies = self._load_supplies()
        clock.lap("read statistics")
        rearranged: dict[str, float] = {}
        if self.rearrange != "none":
            assert supplies is not None
            allocation, rearranged = self._rearranger(allocation, supplies)
            clock.lap("rearrange")
        model: Any = cut(self.dense, self.path.structure, allocation.selection)
        added = make_room_for_biases_(
            model, self.path.structure, allocation.selection, kind=self.refit, bias=self.bias
        )
        clock.lap("cut")
        stock = is_stock(model) and allocation.tokens is None
        loader = "stock transformers" if stock else "prunepath (import prunepath first)"
        note(self.progress, f"the result loads with {loader}")
        refit: dict[str, Any] = {"kind": "none"}
        verification = None
        with ExitStack() as stack:
            # It imports what loading takes while the repair is computed here.
            reader = None if output is None else stack.enter_context(FreshProcess(stock=stock))
            if self.refit != "none":
                assert supplies is not None
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
            if (
                allocation.tokens is not None
            ):  # after the repair, whose rows are those of all tokens
                merge_tokens_(model, self.path.structure, allocation.tokens)
            clock.lap("refit")
            if output is not None and reader is not None:
                verification = self._write(
                    model, allocation, refit, rearranged, Path(output), overwrite, reader
                )
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
            rearranged=rearranged,
            latency_seconds=seconds,
            stated_for=stated_for(self.path.structure, self.options.sequence_length),
            task=self.task.name,
            taken=self.taken,
        )

    def _latency_of(self) -> LatencyOf:
        from prunepath.evaluation.latency import latency_table
        from prunepath.evaluation.token_pace import token_pace

        structure = self.path.structure
        table = latency_table(
            self.dense, self.task, self.options.sequence_length, progress=self.progress
        )
        pace = None
        if self._site is not None:
            pace = token_pace(self.dense, self.task, structure, self._site, progress=self.progress)
        return lambda selection, tokens=None: table.seconds(structure, selection, tokens, pace)

    def _load_supplies(self) -> Supplies | None:
        """Statistics and calibration samples beside the path, read once."""
        if self.refit == "none" and self.rearrange == "none" and not self.measures:
            return None
        if self._supplies is None:
            sequential = self.refit in ("sequential", "scales")
            self._supplies = read_supplies(self.path, self.task, sequential=sequential)
        found: Supplies = self._supplies
        return found

    @cached_property
    def _token_scores(self) -> Any:
        from prunepath.api.merging import scores_beside

        supplies = self._load_supplies() or read_supplies(self.path, self.task, sequential=False)
        return scores_beside(
            self.dense, self.path, self.task, supplies, self._site, progress=self.progress
        )

    @cached_property
    def _chooser(self) -> Chooser:
        supplies = self._load_supplies()
        assert supplies is not None
        return Chooser(
            self.dense, self.path, self.task, supplies, self.options, progress=self.progress
        )

    @cached_property
    def _rearranger(self) -> Rearranger | Swapper:
        if self.rearrange == "swaps":
            return Swapper(self.dense, self.path, self.task, progress=self.progress)
        return Rearranger(self.dense, self.path, self.task, progress=self.progress)

    def _write(
        self,
        model: Any,
        allocation: Allocation,
        refit: Mapping[str, Any],
        rearranged: Mapping[str, float],
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
                rearranged=rearranged,
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
