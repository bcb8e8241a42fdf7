"""State of a long run on disk: written whole or not at all, and only resumed by the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunepath.files import atomic_write
from prunepath.methods.method import SearchContext
from prunepath.progress import note

__all__ = ["RunState"]


class RunState:
    """Reads and writes the state of one run in the context's state folder, if it has one.

    Args:
        context: whose `state_folder` is used; None keeps nothing.
        name: file name without suffix.
        settings: everything else the run depends on; a file with other settings is not resumed.

    A loaded state has the exact bits of the saved one, so a resumed run ends where an
    uninterrupted one does.
    """

    def __init__(self, context: SearchContext, name: str, settings: Mapping[str, Any]) -> None:
        folder = context.state_folder
        self._file = None if folder is None else folder / f"{name}.safetensors"
        self._progress = context.progress
        self._key = json.dumps(
            {
                **settings,
                "objective": context.objective,
                "seed": context.seed,
                "units": {group.name: group.num_units for group in context.structure.groups},
                "task": context.task.name,
                "data": context.samples.fingerprint,
            },
            sort_keys=True,
        )

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write tensors and JSON-ready facts.

        Raises:
            DiskError: they cannot be written.
        """
        if self._file is None:
            return
        from safetensors.torch import save_file

        metadata = {"run": self._key, "facts": json.dumps(facts)}
        with atomic_write(self._file) as beside:
            save_file({k: v.contiguous() for k, v in tensors.items()}, beside, metadata=metadata)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What the same run saved last; None where there is nothing to resume."""
        if self._file is None or not self._file.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._file, framework="pt") as handle:
                metadata = handle.metadata() or {}
                if metadata.get("run") != self._key:
                    note(
                        self._progress,
                        f"{self._file.name} belongs to a search with other settings or data; "
                        "starting anew",
                    )
                    return None
                facts: dict[str, Any] = json.loads(metadata["facts"])
                tensors = {key: torch.clone(handle.get_tensor(key)) for key in handle.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            note(self._progress, f"{self._file.name} cannot be read ({error}); starting anew")
            return None
        return tensors, facts
