"""Evaluation: what a language model is worth (perplexity, multiple choice), how fast any one runs.

What other models are worth is measured by their task (`prunepath.tasks`).

Nothing here changes a model: it is put in eval mode and left as it was found.
"""

from __future__ import annotations

from prunepath.evaluation.choices import ChoicesAccuracy, choices_accuracy
from prunepath.evaluation.perplexity import Perplexity, perplexity
from prunepath.evaluation.speed import Speed, compare_speed, measure_speed
from prunepath.evaluation.throughput import Throughput, compare_throughput, measure_throughput

__all__ = [
    "ChoicesAccuracy",
    "Perplexity",
    "Speed",
    "Throughput",
    "choices_accuracy",
    "compare_speed",
    "compare_throughput",
    "measure_speed",
    "measure_throughput",
    "perplexity",
]
