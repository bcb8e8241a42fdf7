"""Evaluation: what a model is worth (perplexity, multiple choice) and how fast it runs.

Nothing here changes a model: it is put in eval mode and left as it was found.
"""

from __future__ import annotations

from prunepath.evaluation.choices import ChoicesAccuracy, choices_accuracy
from prunepath.evaluation.perplexity import Perplexity, perplexity
from prunepath.evaluation.speed import Speed, compare_speed, measure_speed

__all__ = [
    "ChoicesAccuracy",
    "Perplexity",
    "Speed",
    "choices_accuracy",
    "compare_speed",
    "measure_speed",
    "perplexity",
]
