"""What all recipes of a comparison have in common: the model, the evaluation, and the rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.api.stated import LENGTH

if TYPE_CHECKING:
    from prunepath.allocation.budget import Budget
    from prunepath.api.calibration import Calibration, DenseModel
    from prunepath.api.shared_search import SharedSearch, Taken
    from prunepath.api.supplies import Supplies
    from prunepath.api.workshop import Workshop
    from prunepath.data.samples import Samples
    from prunepath.evaluation.choices import Question
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.recipes import Recipe
    from prunepath.report.comparison import ComparisonRow
    from prunepath.statistics.dense_answers import DenseAnswers
    from prunepath.structure.cost import Cost

__all__ = ["Contest", "read_choices"]

_ANSWERS = 256
"""Evaluation samples on which answers are compared: enough for two digits of a mean."""
_ANSWER_BYTES = 256 * 10**6
"""What their dense answers may take: of a large vocabulary two windows."""


def read_choices(files: Sequence[str | Path], limit: int | None) -> dict[Path, list[Question]]:
    """Questions by file, read before anything expensive.

    Raises:
        DataError: a file is missing, or a line of it is no question.
    """
    if not files:
        return {}
    from prunepath.evaluation.choices import read_questions

    return {Path(file): read_questions(Path(file), limit) for file in files}


class Contest:
    """Measures dense and cut models alike and keeps a row of each.

    Args:
        dense: the dense model.
        evaluation: what all are measured on.
        choices: files of questions all answer.
        folder: where rows, paths, table and picture go.
        window: tokens per sample of text, for which MACs are stated, too.
        questions: how many questions of each file; None asks all.
        progress: who listens.
    """

    def __init__(
        self,
        dense: DenseModel,
        evaluation: Samples,
        choices: Mapping[Path, list[Question]],
        folder: Path,
        *,
        window: int | None,
        questions: int | None,
        progress: Progress | None,
    ) -> None:
        from prunepath.report.comparison import ComparisonRow
        from prunepath.report.rows import read_rows_of

        self._dense, self._evaluation, self._choices = dense, evaluation, choices
        self._length = LENGTH if window is None else window
        self._questions, self._progress = questions, progress
        self.folder, self.work = folder, folder / ".work"
        self._request = _digest(
            dense.weights,
            evaluation.fingerprint,
            self._length,
            [(str(file), [vars(each) for each in asked]) for file, asked in choices.items()],
        )
        self._file = folder / f"compare-{self._request[:10]}.jsonl"
        self._rows: dict[tuple[str, int, float], ComparisonRow] = {}
        self._done = {row.request: row for row in read_rows_of(self._file, ComparisonRow)}

    def question_samples(self) -> Samples | None:
        """The questions as samples, to be looked up in calibration data; None where none are."""
        import torch

        from prunepath.data.samples import Samples

        texts = [
            text + ending
            for asked in self._choices.values()
            for question in asked
            for text, ending in question.pairs
        ]
        if not texts:
            return None
        tokenizer: Any = self._dense.opened.tokenizer
        rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        names = ", ".join(file.name for file in self._choices)
        return Samples(
            inputs={"input_ids": ids, "attention_mask": mask}, description=f"questions of {names}"
        )

    def refuse_impossible(
        self, recipes: Sequence[Recipe], budget: Budget, calibration: Calibration
    ) -> None:
        """Try the largest cut on a random order, which needs no pass.

        Raises:
            BudgetError: a recipe's layout, kinds or floor do not allow it.
            RequestError: the model does not have what a recipe cuts.
        """
        from prunepath.api.ranking import rank_units
        from prunepath.api.recipes import find_recipe, make_method
        from prunepath.methods.scope import scored_part
        from prunepath.statistics.sums import Statistics

        probe = find_recipe("random")
        method = make_method(probe)
        provenance = calibration.provenance(probe, method)
        tried: list[Any] = []
        for recipe in recipes:
            structure = scored_part(self._dense.structure, make_method(recipe))
            dense = replace(calibration.dense, structure=structure)
            path = rank_units(
                replace(calibration, dense=dense), Statistics(), method, provenance, self.work
            )
            said = replace(provenance, recipe=recipe.to_dict())
            shop = self._shop(replace(path, provenance=said))
            if (shop.options, path.structure.groups) not in tried:
                shop.foresee(budget)
                tried.append((shop.options, path.structure.groups))

    def dense_row(self, seed: int) -> ComparisonRow:
        """The model all others are cut from."""
        from prunepath.structure.cost import cost_of
        from prunepath.structure.selection import everything

        structure = self._dense.structure
        # Its structure was read off this very model; reading it again would put experts together.
        cost = cost_of(structure, everything(structure), self._length)
        facts: dict[str, Any] = {"recipe": "dense", "ratio": 0.0, "asked_ratio": 0.0, "seed": seed}
        return self._measured(
            _digest(self._request, "dense"),
            lambda request: self._row(
                "dense", self._dense.opened.model, cost, request=request, **facts
            ),
        )

    def measure(
        self, search: SharedSearch, recipes: Sequence[Recipe], budgets: Mapping[float, Budget]
    ) -> list[ComparisonRow]:
        """Rows of all recipes of one objective and seed, measured now or before.

        Args:
            search: finds their paths.
            recipes: those of its objective.
            budgets: ratio -> budget.
        """
        seed = search.calibration.seed
        requests = {
            (recipe.name, ratio): _digest(self._request, search.identity, recipe.to_dict(), ratio)
            for recipe in recipes
            for ratio in budgets
        }
        missing = [
            recipe
            for recipe in recipes
            if any(requests[recipe.name, ratio] not in self._done for ratio in budgets)
        ]
        folders = {recipe.name: self._path_folder(recipe, seed) for recipe in missing}
        for recipe in missing:
            search.expect(recipe, folders[recipe.name])
        supplies: dict[str, Supplies | None] = {}  # by refit: not every one needs the same files
        for recipe in missing:
            path, taken = search.find(recipe, folders[recipe.name])
            shop = self._shop(path)
            shop.adopt(self._dense.opened, supplies.get(shop.refit))
            again = self._seen(recipe, path, shop)
            for ratio, budget in budgets.items():
                if again is not None and (recipe.name, again, ratio) in self._rows:
                    make = partial(self._same_row, self._rows[recipe.name, again, ratio], seed)
                else:
                    make = partial(self._cut_row, shop, budget, recipe, taken, ratio, seed)
                self._measured(requests[recipe.name, ratio], make)
            supplies[shop.refit] = shop.supplies
        found = [self._done[request] for request in requests.values()]
        self._rows.update({(row.recipe, seed, row.asked_ratio): row for row in found})
        return found

    def write(self, rows: Sequence[ComparisonRow]) -> None:
        """Write the table and the picture."""
        from prunepath.files import atomic_write
        from prunepath.report.comparison import comparison_markdown, comparison_series
        from prunepath.report.curve import save_curve

        with atomic_write(self.folder / "compare.md") as beside:
            beside.write_text(comparison_markdown(rows), encoding="utf-8")
        save_curve(
            self.folder / "compare.png",
            comparison_series(rows),
            dense=rows[0],
            title=self._dense.opened.model_id,
        )

    def _shop(self, path: SolutionPath) -> Workshop:
        from prunepath.api.workshop import Workshop

        return Workshop(path, sequence_length=self._length)

    def _path_folder(self, recipe: Recipe, seed: int) -> Path:
        return self.folder / "paths" / (f"{recipe.name}-seed{seed}" if seed else recipe.name)

    def _seen(self, recipe: Recipe, path: SolutionPath, shop: Workshop) -> int | None:
        """An earlier seed that gives the very same model: what is cut and what repairs it agree."""
        from prunepath.errors import PathFileError
        from prunepath.path import SolutionPath

        if shop.rearrange != "none" or shop.measures:  # by draws of the seed
            return None
        for seed in dict.fromkeys(seed for name, seed, _ in self._rows if name == recipe.name):
            try:
                other = SolutionPath.from_pretrained(self._path_folder(recipe, seed))
            except PathFileError:
                continue  # its folder was taken away, and its rows are all that is left of it
            same_data = other.provenance.data_fingerprint == path.provenance.data_fingerprint
            same_units = _units_digest(other) == _units_digest(path)
            if same_units and (same_data or shop.refit == "none"):
                return seed
        return None

    def _same_row(self, row: ComparisonRow, seed: int, request: str) -> ComparisonRow:
        name, note = f"{row.recipe} {row.asked_ratio:g} seed {seed}", "the same for every seed"
        return replace(row, name=name, seed=seed, request=request, note=note)

    def _cut_row(
        self,
        shop: Workshop,
        budget: Budget,
        recipe: Recipe,
        taken: Taken,
        asked: float,
        seed: int,
        request: str,
    ) -> ComparisonRow:
        from prunepath.api.evaluate import counted_cost
        from prunepath.evaluation.mode import device_of
        from prunepath.evaluation.peak import peak_memory

        with peak_memory(device_of(self._dense.opened.model)) as peak:
            made = shop.make(budget)
        peaks = [value for value in (taken.peak_bytes, peak.num_bytes) if value]
        cost, _ = counted_cost(made.model, shop.task, self._length)
        return self._row(
            f"{recipe.name} {asked:g}" + (f" seed {seed}" if seed else ""),
            made.model,
            cost,
            recipe=recipe.name,
            ratio=made.allocation.ratio,
            asked_ratio=asked,
            seed=seed,
            request=request,
            statistics_seconds=taken.statistics_seconds,
            ranking_seconds=taken.ranking_seconds,
            extraction_seconds=round(sum(made.seconds.values()), 3),
            peak_bytes=max(peaks, default=None),
        )

    def _row(self, name: str, model: Any, cost: Cost | None, **facts: Any) -> ComparisonRow:
        """Measure a model; its costs are read off its own tensors."""
        from prunepath.evaluation.choices import choices_accuracy
        from prunepath.report.comparison import ComparisonRow

        opened = self._dense.opened
        found = opened.task.evaluate(model, self._evaluation, progress=self._progress)
        answered = {
            file.stem: 100
            * choices_accuracy(
                model,
                opened.tokenizer,
                file,
                limit=self._questions,
                progress=self._progress,
            ).accuracy
            for file in self._choices
        }
        return ComparisonRow(
            name=name,
            params=sum(parameter.numel() for parameter in model.parameters()),
            macs=0 if cost is None else cost.macs,
            weight_bytes=sum(each.numel() * each.element_size() for each in model.parameters()),
            kv_bytes_per_token=0 if cost is None else cost.kv_bytes_per_token,
            quality=found.value,
            metric=found.name,
            higher_is_better=found.higher_is_better,
            distance=self._answers.distance(model, self._answers.first()),
            choices=answered,
            note="" if cost is not None else "MACs and cache cannot be counted",
            **facts,
        )

    @cached_property
    def _answers(self) -> DenseAnswers:
        """What distances are measured from; nothing runs where all rows are there."""
        from prunepath.statistics.dense_answers import DenseAnswers

        answers = DenseAnswers(self._dense.opened.model, self._dense.opened.task, self._evaluation)
        answers.thin_(_ANSWERS, _ANSWER_BYTES)
        return answers

    def _measured(self, request: str, make: Callable[[str], ComparisonRow]) -> ComparisonRow:
        """A row that is there, or a new one, which is kept at once."""
        from prunepath.progress import note
        from prunepath.report.rows import append_row

        if request not in self._done:
            row = make(request)
            append_row(self._file, row)
            self._done[request] = row
            note(self._progress, f"{row.name}: {row.metric} {row.quality:.4g}")
        return self._done[request]


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _units_digest(path: SolutionPath) -> str:
    """sha256 over what an allocation reads of a path."""
    digest = hashlib.sha256()
    for table in (path.rank, path.damage):
        for name in sorted(table):
            digest.update(name.encode() + table[name].tobytes())
    return digest.hexdigest()
