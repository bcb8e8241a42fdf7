"""The methods every behaviour is tested on: one line joins the table.

A row is a name for the test, a registered method and its settings; long runs are cut short.
"""

from __future__ import annotations

from typing import Any

__all__ = ["DEPTH", "METHODS"]

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "spp": ("spp", {}),
    "spp-fisher": ("spp", {"curvature": "fisher"}),
    "spp-flow": ("spp", {"curvature": "fisher", "solver": "flow"}),
    "spp-coupled": ("spp", {"dynamics": "coupled", "max_steps": 8}),
    "spp-authors": ("spp", {"dynamics": "authors", "max_steps": 8}),
    "fisher": ("fisher", {}),
    "taylor": ("taylor", {}),
    "magnitude": ("magnitude", {}),
    "taylor-sum": ("taylor", {"reduction": "sum"}),
    "gblm": ("gblm", {}),
    "gblm-fisher": ("gblm", {"form": "fisher"}),
    "pq": ("pq", {}),
    "adapt": ("adapt", {"steps": 4, "amplitude": 0.2}),
    "adapt-once": ("adapt", {"base": "magnitude", "rescoring": False, "steps": 5}),
    "adapt-residual": ("adapt", {"base": "residual:repair=bias,rounds=1", "steps": 3}),
    "adapt-gblm": ("adapt", {"base": "gblm", "steps": 3, "step_windows": 2}),
    "random": ("random", {}),
    "optin": ("optin", {"probes": 4}),
    "optin-exact": ("optin", {"mode": "exact"}),
    "optin-mean": (
        "optin",
        {"mode": "gn", "probes": 2, "md_norm": "mean", "horizon": 1, "tokens": 16},
    ),
    "residual": ("residual", {}),
    "residual-wanda": (
        "residual",
        {"repair": "none", "metric": "wanda", "standardise": "relative"},
    ),
    "residual-flap": ("residual", {"repair": "bias", "metric": "wifv", "standardise": "zscore"}),
    "residual-both": ("residual", {"repair": "linear+bias", "rounds": 4}),
    "influence": ("block-influence", {}),
    "influence-sublayers": ("block-influence", {"unit": "sublayer", "distance": "angular"}),
    "influence-blocks": ("block-influence", {"distance": "angular", "blocks": True}),
    "finercut": ("finercut", {}),
    "finercut-kl": ("finercut", {"distance": "kl", "tokens": 12}),
    "finercut-some": ("finercut", {"distance": "angular", "steps": 2, "samples": 2}),
}

DEPTH = ("block-influence", "finercut")
"""Methods that order whole sub-layers and nothing inside them."""
