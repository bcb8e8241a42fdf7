"""How many samples a second a model answers, for tasks that do not write text token by token.

As with `speed`, models to be compared take turns and every number is a median, so that a busy
moment of the machine hits all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from prunepath.errors import RequestError
from prunepath.evaluation.mode import describe_device, device_of, evaluating
from prunepath.progress import Progress, track
from prunepath.tasks.task import Task

__all__ = ["Throughput", "compare_throughput", "measure_throughput"]


@dataclass(frozen=True)
class Throughput:
    """Median speed of one model, and how it was measured.

    Args:
        samples_per_second: samples answered per second.
        batch_size: samples at once.
        repeats: timings behind the median.
        device: where it ran, with the number of threads on a CPU.
    """

    samples_per_second: float
    batch_size: int
    repeats: int
    device: str


def measure_throughput(
    model: nn.Module,
    task: Task,
    *,
    batch_size: int | None = None,
    window: int | None = None,
    repeats: int = 5,
    progress: Progress | None = None,
) -> Throughput:
    """Measure one model. To compare models, use `compare_throughput`, which takes turns.

    Args:
        model: a model of the task.
        task: makes the samples and runs the model on them.
        batch_size: samples at once; None: the task's usual batch.
        window: tokens per sample, where samples are text; None: the task's own.
        repeats: timings behind the median, after one warm-up that does not count.
        progress: told about every round.

    Returns:
        The median speed.

    Raises:
        RequestError: a number is below 1.
    """
    found = compare_throughput(
        {"model": model},
        task,
        batch_size=batch_size,
        window=window,
        repeats=repeats,
        progress=progress,
    )
    return found["model"]


def compare_throughput(
    models: Mapping[str, nn.Module],
    task: Task,
    *,
    batch_size: int | None = None,
    window: int | None = None,
    repeats: int = 5,
    progress: Progress | None = None,
) -> dict[str, Throughput]:
    """Measure several models in turns, so that their ratios hold on a busy machine.

    Args:
        models: name -> model of the task.
        task: makes the samples and runs the models on them.
        batch_size: samples at once; None: the task's usual batch.
        window: tokens per sample, where samples are text; None: the task's own.
        repeats: rounds; in each, every model is timed once. One warm-up round does not count.
        progress: told about every round.

    Returns:
        Name -> median speed, in the order of `models`.

    Raises:
        RequestError: a number is below 1.
    """
    size = task.counts.batch if batch_size is None else batch_size
    for name, value in (("batch_size", size), ("repeats", repeats)):
        if value < 1:
            raise RequestError(f"{name}={value} was asked for; use at least 1")
    inputs = {
        name: task.dummy(model, size, window=window).to(device_of(model))
        for name, model in models.items()
    }
    timings: dict[str, list[float]] = {name: [] for name in models}
    with evaluating(*models.values()):
        for turn in track(progress, range(repeats + 1), "speed"):
            for name, model in models.items():
                start = _now(model)
                task.output(model, inputs[name])
                seconds = _now(model) - start
                if turn > 0:
                    timings[name].append(seconds)
    return {
        name: Throughput(
            size / statistics.median(taken), size, repeats, describe_device(device_of(models[name]))
        )
        for name, taken in timings.items()
    }


def _now(model: nn.Module) -> float:
    device = device_of(model)
    if device.type == "cuda":  # a GPU returns from a call before the work is done
        torch.cuda.synchronize(device)
    return time.perf_counter()
