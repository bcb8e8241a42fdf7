"""Look at a model without leaving a trace: eval mode, no gradients, and the old modes restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["describe_device", "device_of", "evaluating"]


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models in eval mode and switch gradients off inside the block.

    Args:
        models: the models to be measured. Afterwards every module of theirs is in the mode it was
            in before, also where some parts were frozen in eval mode.
    """
    before = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """The device a model takes its inputs on: that of its first parameter.

    Args:
        model: any module with parameters.

    Returns:
        The device.
    """
    return next(model.parameters()).device


def describe_device(device: torch.device) -> str:
    """A device in words: the GPU's name, or the number of threads of a CPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads != 1 else ''}"
