"""What happens around a command: errors as one sentence, Ctrl-C, and libraries that keep quiet."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import typer

from prunepath.errors import PrunepathError

if TYPE_CHECKING:
    from prunepath.progress import Progress

__all__ = ["EXIT_ERROR", "EXIT_INTERRUPTED", "listener", "session"]

EXIT_ERROR = 2
EXIT_INTERRUPTED = 2

# Read by the libraries when they are imported.
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}


@contextmanager
def session(*, verbose: bool = False, interrupted: str = "nothing was written") -> Iterator[None]:
    """Run a command's body; end the process the way a user can read.

    Args:
        verbose: let other libraries show their warnings and progress bars.
        interrupted: what Ctrl-C leaves behind, as half a sentence.

    A `PrunepathError` is one sentence on stderr and exit code 2, so is Ctrl-C.
    Anything else is a defect and shows its traceback.
    """
    with ExitStack() as stack:
        if not verbose:
            stack.enter_context(_quiet_libraries())
        try:
            yield
        except PrunepathError as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(EXIT_ERROR) from None
        except KeyboardInterrupt:
            typer.echo(f"Interrupted: {interrupted}.", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Switch off what other libraries say, whether they are imported already or will be."""
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update({name: value for name, value in _QUIET.items() if before[name] is None})
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if "transformers" in sys.modules:
            stack.enter_context(_quiet_transformers())
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def listener(quiet: bool) -> Progress | None:
    """Who is told about progress: a terminal's bars, or nobody."""
    if quiet:
        return None
    from prunepath.report.progress import RichProgress

    return RichProgress()
