"""One pass of statistics for many recipes: it runs when the first of them needs it, and once.

A path that was found is kept with what finding it took, so an interrupted comparison neither ranks
nor collects again; the files a refit needs are linked beside every path, not copied.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.api.recipes import cost_class, make_method
from prunepath.errors import NumericsError

if TYPE_CHECKING:
    from prunepath.api.calibration import Calibration
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.recipes import Recipe
    from prunepath.statistics.collect import Wanted
    from prunepath.statistics.sums import Statistics

__all__ = ["SharedSearch", "Taken"]

_TAKEN = "taken.json"
_PASS = "pass.json"


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What finding a path took.

    Args:
        statistics_seconds: wall seconds of the shared pass; None where the method needed none.
        ranking_seconds: wall seconds of the method itself.
        peak_bytes: memory at the peak of both; None where it cannot be told.
    """

    statistics_seconds: float | None
    ranking_seconds: float
    peak_bytes: int | None


class SharedSearch:
    """Searches on the same samples for the same objective.

    Args:
        calibration: model and samples.
        work: folder for the state of passes; this one's is a folder in it.
        progress: who listens.
    """

    def __init__(self, calibration: Calibration, work: Path, progress: Progress | None) -> None:
        self.calibration = calibration
        self._progress = progress
        self._identity = {
            "weights": calibration.dense.weights,
            "data": calibration.samples.fingerprint,
            "plan": asdict(calibration.plan),
            "objective": calibration.objective,
            "seed": calibration.seed,
        }
        digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()
        self.identity = digest
        self._state = work / f"{calibration.objective}-{calibration.seed}-{digest[:10]}"
        self._wanted: Wanted | None = None
        self._sums: Statistics | None = None
        self._ranked: dict[str, tuple[SolutionPath, dict[str, Any]]] = {}

    def expect(self, recipe: Recipe, target: Path) -> None:
        """Say that a path will be asked for, so that one pass measures what all of them need."""
        if self._stored(recipe, target) is None and cost_class(recipe) != "data-free":
            wanted = make_method(recipe).wanted()
            self._wanted = wanted if self._wanted is None else self._wanted | wanted

    def find(self, recipe: Recipe, target: Path) -> tuple[SolutionPath, Taken]:
        """The path of a recipe, found now or before.

        Args:
            recipe: one that was expected.
            target: folder of the path.

        Raises:
            NumericsError: statistics or scores that are not finite.
        """
        from prunepath.api.ranking import rank_units, write_path
        from prunepath.files import atomic_write
        from prunepath.statistics.sums import Statistics

        stored = self._stored(recipe, target)
        if stored is not None:
            return stored
        supplied = cost_class(recipe) != "data-free"
        sums, spent = self.collected() if supplied else (Statistics(), {})
        method = make_method(recipe)
        provenance = self.calibration.provenance(recipe, method)
        # What is cut and repaired differently may well be ordered alike.
        order = json.dumps([recipe.method, method.config.to_dict()], sort_keys=True)
        if order not in self._ranked:
            own = self._state / f"rank-{hashlib.sha256(order.encode()).hexdigest()[:10]}"
            own.mkdir(parents=True, exist_ok=True)
            with _measured(self._device) as ranked:
                found = rank_units(
                    self.calibration, sums, method, provenance, own, progress=self._progress
                )
            self._ranked[order] = found, ranked
        found, ranked = self._ranked[order]
        path = replace(found, provenance=replace(found.provenance, recipe=provenance.recipe))
        write_path(path, self._state / "supplies" if supplied else None, target, overwrite=True)
        peaks = [peak for peak in (spent.get("peak_bytes"), ranked["peak_bytes"]) if peak]
        taken = Taken(
            statistics_seconds=spent.get("seconds"),
            ranking_seconds=ranked["seconds"],
            peak_bytes=max(peaks, default=None),
        )
        with atomic_write(target / _TAKEN) as beside:
            beside.write_text(json.dumps({"identity": self.identity, **asdict(taken)}))
        return replace(path, folder=target), taken

    @property
    def _device(self) -> Any:
        from prunepath.evaluation.mode import device_of

        return device_of(self.calibration.dense.opened.model)

    def _stored(self, recipe: Recipe, target: Path) -> tuple[SolutionPath, Taken] | None:
        """A path in a folder, if it was found by this recipe on these samples."""
        from prunepath.errors import PathFileError
        from prunepath.path import SolutionPath

        try:
            values = json.loads((target / _TAKEN).read_text(encoding="utf-8"))
            path = SolutionPath.from_pretrained(target)
            if values.pop("identity") != self.identity:
                return None
            taken = Taken(**values)
        except (OSError, ValueError, TypeError, KeyError, PathFileError):
            return None  # an earlier comparison's, or cut short: it is found again
        wish = self.calibration.provenance(recipe, make_method(recipe))
        made = path.provenance
        same = (made.recipe, made.method_config, made.library_version) == (
            json.loads(json.dumps(wish.recipe)),
            json.loads(json.dumps(wish.method_config)),
            wish.library_version,
        )
        return (path, taken) if same else None

    def collected(self) -> tuple[Statistics, dict[str, Any]]:
        """The sums, and what the pass took; it goes on where it was interrupted."""
        from prunepath.api.calibration import collect_statistics
        from prunepath.api.ranking import write_supplies
        from prunepath.files import atomic_write
        from prunepath.statistics.collect import Wanted

        assert self._wanted is not None, "find was called for a recipe that was not expected"
        file = self._state / _PASS
        spent = json.loads(file.read_text()) if file.exists() else None
        if spent is not None and not Wanted(**spent["wanted"]).covers(self._wanted):
            shutil.rmtree(self._state)
            spent = None
        if spent is None:
            spent = {"wanted": asdict(self._wanted), "seconds": 0.0, "peak_bytes": None}
        if self._sums is not None:
            return self._sums, spent
        self._state.mkdir(parents=True, exist_ok=True)

        def keep(measured: dict[str, Any]) -> None:
            peaks = [peak for peak in (spent["peak_bytes"], measured["peak_bytes"]) if peak]
            spent["seconds"] += measured["seconds"]
            spent["peak_bytes"] = max(peaks, default=None)
            with atomic_write(file) as beside:
                beside.write_text(json.dumps(spent))

        measured: dict[str, Any] = {}
        keep({"seconds": 0.0, "peak_bytes": None})  # what is wanted stands there from the start
        try:
            with _measured(self._device) as measured:
                self._sums = collect_statistics(
                    self.calibration,
                    Wanted(**spent["wanted"]),
                    self._state,
                    progress=self._progress,
                )
            if not (self._state / "supplies").exists():
                write_supplies(self.calibration, self._sums, self._state)
        except NumericsError:  # it would fail again
            shutil.rmtree(self._state)
            raise
        finally:
            if self._state.exists():
                keep(measured)
        return self._sums, spent


@contextmanager
def _measured(device: Any) -> Iterator[dict[str, Any]]:
    """Wall seconds and peak memory of the block, also of one that is interrupted."""
    from prunepath.evaluation.peak import peak_memory

    found: dict[str, Any] = {"seconds": 0.0, "peak_bytes": None}
    started = time.perf_counter()
    try:
        with peak_memory(device) as peak:
            yield found
        found["peak_bytes"] = peak.num_bytes
    finally:
        found["seconds"] = round(time.perf_counter() - started, 3)
