"""One error family: every message says what was asked, what was found and what to do.

Everything a user can cause derives from `PrunepathError`, which is a `ValueError`. The command
line turns it into one sentence and exit code 2; `assert` is kept for our own invariants.
"""

from __future__ import annotations

__all__ = [
    "BudgetError",
    "DataError",
    "DiskError",
    "ExactnessError",
    "MissingExtraError",
    "ModelError",
    "NumericsError",
    "PathFileError",
    "PrunepathError",
    "RequestError",
]


class PrunepathError(ValueError):
    """Base of all errors a user can cause or meet."""


class RequestError(PrunepathError):
    """An argument is wrong by itself: an unknown method, a malformed number, a bad combination."""


class ModelError(PrunepathError):
    """The model cannot be found, read or understood."""


class DataError(PrunepathError):
    """The calibration or evaluation data is missing, empty or too short."""


class BudgetError(PrunepathError):
    """The budget cannot be met, is above the dense model, or is malformed."""


class PathFileError(PrunepathError):
    """A solution path is truncated, tampered with, or belongs to other weights."""


class DiskError(PrunepathError):
    """The target cannot be written: no space, no permission, or already in use."""


class NumericsError(PrunepathError):
    """NaN or infinity in weights, loss or statistics."""


class ExactnessError(PrunepathError):
    """Two things that must be equal are not: gated and cut model, saved and reloaded model."""


class MissingExtraError(PrunepathError):
    """An optional package is needed and not installed."""
