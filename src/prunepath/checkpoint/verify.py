"""Read a written model back in a fresh process and compare its logits with the one in memory.

The fresh process is what a user has: a stock model is loaded without prunepath at all, any other
through the Auto classes after `import prunepath`. Whatever was kept only in this process (a class,
a hook, a config patched by hand) is missing there, and the difference shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunepath.errors import ExactnessError

__all__ = ["Verification", "verify_reload"]

_PROGRAM = """
import sys, warnings
warnings.filterwarnings("ignore")
folder, ids_file, out_file, threads, stock = sys.argv[1:]
if stock != "stock":
    import prunepath
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging
logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(int(threads))
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
with torch.no_grad():
    logits = model(input_ids=load_file(ids_file)["ids"], use_cache=False).logits
save_file({"logits": logits.contiguous()}, out_file)
"""


@dataclass(frozen=True)
class Verification:
    """What the comparison found.

    Args:
        difference: largest absolute difference between logits.
        allowed: the largest that is accepted.
        loader: `"transformers"` or `"prunepath"`, what a user needs to load the model.
        tokens: tokens compared.
    """

    difference: float
    allowed: float
    loader: str
    tokens: int


def _environment(stock: bool) -> dict[str, str]:
    """This process's environment; where prunepath is needed, it is found as it was found here."""
    if stock:
        return dict(os.environ)
    here = str(Path(__file__).resolve().parents[2])
    rest = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, rest] if rest else [here])}


def verify_reload(model: Any, folder: Path, ids: Tensor, *, stock: bool) -> Verification:
    """Compare a saved model with the one in memory.

    Args:
        model: the model in memory.
        folder: where it was saved.
        ids: token ids (B, T) to compare on.
        stock: whether stock transformers must be able to load it, without prunepath.

    Returns:
        The largest difference found, which is within the allowed one.

    Raises:
        ExactnessError: it does not load, or the logits differ.
    """
    from safetensors.torch import load_file, save_file

    with torch.no_grad():
        expected = model(input_ids=ids.to(model.device), use_cache=False).logits.cpu()
    loader = "transformers" if stock else "prunepath"
    with tempfile.TemporaryDirectory() as scratch:
        ids_file, out_file = Path(scratch) / "ids.safetensors", Path(scratch) / "out.safetensors"
        save_file({"ids": ids.contiguous()}, ids_file)
        arguments = [folder, ids_file, out_file, torch.get_num_threads(), "stock" if stock else ""]
        command = [sys.executable, "-c", _PROGRAM, *map(str, arguments)]
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env=_environment(stock)
        )
        if result.returncode != 0:
            last = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExactnessError(
                f"the written model does not load in a fresh process with {loader}: {last} Nothing "
                "was kept; please report this with the model's name"
            )
        found = load_file(out_file)["logits"]
    scale = max(1.0, float(expected.abs().max()))
    allowed = scale * (1e-5 if expected.dtype == torch.float32 else 1e-2)
    difference = float((found.float() - expected.float()).abs().max())
    if not difference <= allowed:
        raise ExactnessError(
            f"the written model, read back in a fresh process, differs from the one in memory by "
            f"{difference:.3g} in its logits (allowed: {allowed:.1g}); nothing was kept, please "
            "report this with the model's name"
        )
    return Verification(difference, allowed, loader, ids.numel())
