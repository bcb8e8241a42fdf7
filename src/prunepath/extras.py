"""Optional packages: one way to import them, one message when they are absent."""

from __future__ import annotations

import importlib
from types import ModuleType

from prunepath.errors import MissingExtraError

__all__ = ["require_extra"]


def require_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Args:
        module: name of the module, for example `"matplotlib"`.
        extra: the extra of prunepath that installs it, for example `"plot"`.
        purpose: what the user wanted, as a noun phrase: `"drawing a curve"`.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the package is not installed.

    Example:
        >>> require_extra("no_such_package", "plot", "drawing a curve")
        Traceback (most recent call last):
        ...
        prunepath.errors.MissingExtraError: drawing a curve needs the package no_such_package, which is not installed; run: pip install "prunepath[plot]"
    """  # noqa: E501 - the message is shown as it is printed
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A package that is present but lacks one of its own parts must not read as "not installed".
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package {error.name}, which is not installed; "
            f'run: pip install "prunepath[{extra}]"'
        ) from None
