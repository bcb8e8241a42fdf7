"""SPP: the solution path of split linearized Bregman dynamics on gates, three ways.

- `surrogate`: the whole path on a quadratic model of the loss, from the statistics of one pass;
  deterministic, seconds. See surrogate.py, elimination.py (greedy) and flow.py (the dynamics).
- `coupled`: the dynamics on the real loss; hundreds of passes. See coupled.py and bregman.py.
- `authors`: the rule of the authors' public code, for comparison. See authors.py.

A path's entry times are those of the dynamics brought to one clock: on a diagonal quadratic the
time of a unit tends to (lambda - 1) / h as the coupling goes to 0, whatever its group's own scale
is, so its curvature per parameter orders all groups together. That is what a method reports when
it reports damage (h / 2) and no times of its own.
"""

from __future__ import annotations

from prunepath.methods.authors import authors_ranking
from prunepath.methods.coupled import coupled_ranking
from prunepath.methods.method import CostClass, Method, Ranking, SearchContext
from prunepath.methods.spp_config import SppConfig
from prunepath.methods.surrogate import surrogate_damage
from prunepath.statistics.collect import Wanted

__all__ = ["Spp", "SppConfig"]


class Spp(Method):
    """Solution path pruning (arXiv 2501.03289), on a model of the loss or on the loss itself."""

    name = "spp"
    summary = "solution path of coupled Bregman dynamics; one search for every size"
    Config = SppConfig

    def wanted(self) -> Wanted:
        surrogate = self.config.dynamics == "surrogate"
        return Wanted(
            gradients=self.config.dynamics != "authors", moments=True, output_gradients=surrogate
        )

    def objective(self) -> str:
        return "task" if self.config.dynamics == "authors" else "kl"

    def cost_class(self) -> CostClass:
        return "gradients" if self.config.dynamics == "surrogate" else "search"

    def rank(self, context: SearchContext) -> Ranking:
        if self.config.dynamics == "coupled":
            return coupled_ranking(context, self.config)
        if self.config.dynamics == "authors":
            return authors_ranking(context, self.config)
        return Ranking(damage=surrogate_damage(context, self.config))
