"""A fresh process that reads written models back; started early, it imports while others work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.checkpoint import readback
from prunepath.checkpoint.save import loading_class
from prunepath.errors import ExactnessError

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from prunepath.data.samples import Samples

__all__ = ["FreshProcess"]


class FreshProcess:
    """A process that has nothing of this one, and waits to be told which folder to read.

    Args:
        stock: whether stock transformers must be able to load them, without prunepath.

    Example:
        >>> with FreshProcess(stock=True) as process:  # doctest: +SKIP
        ...     model.save_pretrained("out")
        ...     process.answers(model, Path("out"), samples)
    """

    def __init__(self, *, stock: bool) -> None:
        import torch

        self.loader = "transformers" if stock else "prunepath"
        program = Path(readback.__file__).read_text(encoding="utf-8")
        arguments = [self.loader, str(torch.get_num_threads())]
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(stock),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ended:
            self._process.kill()
        self._process.communicate()

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def answers(self, model: Any, folder: Path, samples: Samples) -> dict[str, Tensor]:
        """What a written model says about samples, read back in that process; once.

        Args:
            model: the model that was written; its class says how it is loaded.
            folder: where it was written.
            samples: what it is asked.

        Raises:
            ExactnessError: it does not load there.
        """
        from safetensors.torch import load_file, save_file

        with tempfile.TemporaryDirectory() as scratch:
            inputs, outputs = (Path(scratch) / f"{name}.safetensors" for name in ("in", "out"))
            save_file({key: value.contiguous() for key, value in samples.inputs.items()}, inputs)
            _, errors = self._process.communicate(
                json.dumps([loading_class(model), str(folder), str(inputs), str(outputs)]) + "\n"
            )
            if self._process.returncode != 0 or not outputs.exists():
                last = (errors.strip().splitlines() or ["no message"])[-1]
                raise ExactnessError(
                    "the written model does not load in a fresh process with "
                    f"{self.loader}: {last} Nothing was kept; please report this with the "
                    "model's name"
                )
            return load_file(outputs)


def _environment(stock: bool) -> dict[str, str]:
    """This process's environment; where prunepath is needed, it is found as it was found here."""
    if stock:
        return dict(os.environ)
    here = str(Path(__file__).resolve().parents[2])
    rest = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, rest] if rest else [here])}
