"""OPTIN (arXiv 2403.17921): one look at a model without labels or gradients orders its units.

The order and every budget after it are the library's own: units enter by damage per cost. See
docs/method.md for the formula and for what deviates from the released code, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from prunepath.errors import PathFileError
from prunepath.methods.method import CostClass, Method, Ranking, SearchContext
from prunepath.methods.optin.config import AFTER_SCORING, OptinConfig
from prunepath.methods.optin.exact import exact_scores
from prunepath.methods.optin.gauss_newton import gauss_newton_scores
from prunepath.methods.optin.hybrid import hybrid_scores
from prunepath.methods.optin.scene import Scene
from prunepath.methods.optin.scores import SCORES_FILE, TrajectoryScores
from prunepath.methods.standardise import standardised
from prunepath.structure.gates import frozen
from prunepath.structure.units import Structure

__all__ = ["Optin", "OptinConfig"]

_MODES = {"exact": exact_scores, "gn": gauss_newton_scores, "hybrid": hybrid_scores}


class Optin(Method):
    """Trajectory scores: how far the removal of a unit bends the features behind it."""

    name = "optin"
    summary = "how far a unit's removal bends the features behind it; scores can be reweighted"
    Config = OptinConfig
    objectives: ClassVar[tuple[str, ...]] = ("kl",)
    after_scoring: ClassVar[tuple[str, ...]] = AFTER_SCORING

    def cost_class(self) -> CostClass:
        return "search"

    def rank(self, context: SearchContext) -> Ranking:
        with frozen(context.model):
            scores = _MODES[self.config.mode](Scene.of(context, self.config))
        return self._ranking(scores, context.structure)

    def rerank(self, structure: Structure, folder: Path, extra: Mapping[str, Any]) -> Ranking:
        scores = TrajectoryScores.load(folder / SCORES_FILE)
        if scores.checksum != extra.get("scores"):
            raise PathFileError(
                f"the scores in {folder} belong to another search than the path beside them; "
                "search again"
            )
        return self._ranking(scores, structure)

    def _ranking(self, scores: TrajectoryScores, structure: Structure) -> Ranking:
        ranking = Ranking(
            damage=scores.combine(self.config, structure),
            extra={"scores": scores.checksum, "features": list(scores.features)},
            companions={SCORES_FILE: scores},
        )
        return standardised(ranking, self.config.standardise)
