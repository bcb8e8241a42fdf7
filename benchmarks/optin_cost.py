"""What OPTIN's scores cost: the loop as released beside `--method optin`, in time and memory.

    python -m benchmarks optin_cost [--models minilm,vit] [--samples N] [--candidates 16]

Four processes for each model, all on the same calibration samples, so that none inherits what
another one left in memory: the released loop over some candidates (`optin_naive`), a forward pass
of the dense model over the whole batch, and the scores (mode hybrid, without the pass for the
refit's moments) of all units, and of those alone that the loop removes: heads and FFN channels.
Batches are those of the released runs, 128 sentences and 32 images. Sentences are padded to the
longest of the batch for loop and forward pass; the scores are free to run them in other company.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.models import MODELS
from benchmarks.optin_naive import BATCHES, naive_seconds_per_candidate
from benchmarks.protocol import ROOT, Rows

PARTS = ("dense", "naive", "scores", "same scores")
RELEASED_KINDS = ("head", "ffn_channel")
_PASSES = 3
_PAGE = resource.getpagesize()


def main(arguments: list[str]) -> None:
    """Measure everything that has no row yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks optin_cost", description=__doc__)
    parser.add_argument("--models", default=",".join(BATCHES))
    parser.add_argument("--samples", type=int, help="by default those of the released runs")
    parser.add_argument("--candidates", type=int, default=16, help="of each kind, for the loop")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = options.models.split(",")
    for name in names:
        if name not in BATCHES:
            raise SystemExit(f"unknown model '{name}'; use one of {', '.join(BATCHES)}")
    if options.part:
        print(json.dumps(_PART[options.part](names[0], options.samples, options.candidates)))
        return
    rows = Rows("optin_cost")
    for name in names:
        samples = options.samples or BATCHES[name]
        for part in PARTS:
            key = {"model": MODELS[name].title, "part": part, "samples": samples}
            if part == "naive":
                key["asked"] = options.candidates
            if not rows.has(**key):
                print(f"{name}: {part}, {samples} samples", flush=True)
                rows.add({**key, **_in_process(name, part, samples, options.candidates)})


def _in_process(name: str, part: str, samples: int, candidates: int) -> dict[str, Any]:
    words = ["--models", name, "--part", part, "--samples", samples, "--candidates", candidates]
    command = [sys.executable, "-m", "benchmarks", "optin_cost", *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _naive(name: str, samples: int, candidates: int) -> dict[str, Any]:
    context = _context(name, samples)
    timing = naive_seconds_per_candidate(
        context.model,
        context.samples,
        task=context.task,
        structure=context.structure,
        candidates=candidates,
    )
    return {
        **_shape(context),
        "seconds": timing.total_seconds,
        "seconds_each": timing.seconds,
        "candidates": timing.candidates,
        "timed": timing.timed,
    }


def _dense(name: str, samples: int, _: int) -> dict[str, Any]:
    import torch

    from prunepath.evaluation.mode import evaluating

    context = _context(name, samples)
    taken = []
    with evaluating(context.model), _Memory(torch.device("cpu")) as memory:
        for _ in range(_PASSES):
            start = time.perf_counter()
            context.task.output(context.model, context.samples.inputs)
            taken.append(time.perf_counter() - start)
    return {**_shape(context), "seconds": min(taken), **memory.found}


def _same_scores(name: str, samples: int, candidates: int) -> dict[str, Any]:
    return _scores(name, samples, candidates, RELEASED_KINDS)


def _scores(name: str, samples: int, _: int, kinds: tuple[str, ...] = ()) -> dict[str, Any]:
    from dataclasses import replace

    import torch

    from prunepath.methods.optin.config import OptinConfig
    from prunepath.methods.optin.exact import exact_scores
    from prunepath.methods.optin.hybrid import hybrid_scores
    from prunepath.methods.optin.scene import Scene
    from prunepath.structure.gates import frozen

    context = _context(name, samples)
    groups = [g for g in context.structure.groups if not kinds or g.kind in kinds]
    context = replace(context, structure=replace(context.structure, groups=tuple(groups)))
    config = OptinConfig(samples=samples)
    with _Memory(torch.device("cpu")) as memory, frozen(context.model):
        start = time.perf_counter()
        scores = hybrid_scores(Scene.of(context, config))
        measured = int(sum(exact.sum() for exact in scores.exact.values()))
        if kinds:  # heads are always measured, also here, where nothing finer is scored beside them
            heads = tuple(group for group in groups if group.kind == "head")
            alone = replace(context, structure=replace(context.structure, groups=heads))
            measured += len(heads) * heads[0].num_units
            exact_scores(Scene.of(alone, config))
        seconds = time.perf_counter() - start
    return {
        **_shape(context),
        "seconds": seconds,
        "units": sum(len(exact) for exact in scores.exact.values()),
        "exact": measured,
        "backward_passes": scores.facts["backward_passes"],
        "probes": config.probes,
        **memory.found,
    }


_PART = {"naive": _naive, "dense": _dense, "scores": _scores, "same scores": _same_scores}


def _context(name: str, samples: int) -> Any:
    """Model and samples, padded to the longest of them."""
    from dataclasses import replace

    from benchmarks.optin_agreement import search_context
    from prunepath.methods.optin.batching import trimmed

    found = search_context(name, samples)
    return replace(found, samples=trimmed(found.samples))


def _shape(context: Any) -> dict[str, Any]:
    import torch

    ids = context.samples.inputs.get("input_ids")
    return {
        "tokens": None if ids is None else int(ids.shape[1]),
        "threads": torch.get_num_threads(),
    }


class _Memory:
    """Resident bytes of this process at the peak of a block, and what the block added."""

    def __init__(self, device: Any) -> None:
        from prunepath.evaluation.peak import peak_memory

        self.found: dict[str, Any] = {}
        self._measure = peak_memory(device)

    def __enter__(self) -> _Memory:
        self._before = _resident()
        self._peak = self._measure.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._measure.__exit__(*error)
        # Where the mark cannot be lowered it holds the peak of loading, too.
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        peak = self._peak.num_bytes or highest
        self.found = {
            "peak_bytes": peak,
            "loaded_bytes": self._before,
            "added_bytes": peak - self._before,
        }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
