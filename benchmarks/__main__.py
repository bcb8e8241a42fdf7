"""`python -m benchmarks NAME ...`: one benchmark; without a name, all of them, then the page."""

from __future__ import annotations

import sys

from benchmarks import (
    field,
    optin_agreement,
    optin_cost,
    optin_quality,
    optin_spp,
    render,
    search_speed,
    task_speed,
    tasks,
)

BENCHMARKS = {
    "search_speed": search_speed.main,
    "tasks": tasks.main,
    "task_speed": task_speed.main,
    "field": field.main,
    "optin": optin_agreement.main,
    "optin_cost": optin_cost.main,
    "optin_quality": optin_quality.main,
    "optin_spp": optin_spp.main,
    "render": render.main,
}

if __name__ == "__main__":
    name, *rest = sys.argv[1:] or ["all"]
    if name == "all":
        for run in BENCHMARKS.values():
            run(rest)
    elif name in BENCHMARKS:
        BENCHMARKS[name](rest)
    else:
        raise SystemExit(f"unknown benchmark '{name}'; use one of {', '.join(BENCHMARKS)}")
