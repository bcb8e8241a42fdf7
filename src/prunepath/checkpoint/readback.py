"""The program a fresh process runs to read a written model back; also how outputs are compared.

This file is handed to the process as text, so it imports nothing of prunepath unless it is told
to: a model that stock transformers must be able to load is loaded by stock transformers alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import torch
from torch import Tensor

__all__ = ["answers", "main"]


def answers(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything a model says about its inputs, caches left out.

    Args:
        model: a transformers model in evaluation mode.
        inputs: keywords of its forward, on its device.

    Returns:
        Path inside the output, for example `"logits"` or `"hidden_states.0"`, -> floating tensor on
        the CPU.
    """
    with torch.no_grad():
        output = model(**inputs)
    return {path: tensor.detach().cpu() for path, tensor in _flat(output, "output")}


def _flat(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if "past_key_values" not in name and not name.endswith("cache"):
                yield from _flat(inner, f"{path}.{name}" if path != "output" else str(name))
    elif isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{index}")


def main(loader: str, threads: str, requests: TextIO) -> None:
    """Import what loading takes, wait for a request, and write what that model says.

    Args:
        loader: `"transformers"`, or `"prunepath"` where that is needed, too.
        threads: threads of the process.
        requests: where one line comes from, as a JSON list: the class that loads the model (empty:
            `prunepath.load`), its folder, the safetensors file with its inputs and the one to
            write. None comes where nothing was written.
    """
    import warnings

    warnings.filterwarnings("ignore")
    if loader == "prunepath":
        import prunepath
    import transformers
    from safetensors.torch import load_file, save_file
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(int(threads))
    line = requests.readline()
    if not line:
        return
    name, folder, inputs, outputs = json.loads(line)
    read = getattr(transformers, name).from_pretrained if name else prunepath.load
    model = read(folder, dtype="auto").eval()
    found = answers(model, load_file(inputs))
    save_file({path: tensor.clone().contiguous() for path, tensor in found.items()}, outputs)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.stdin)
