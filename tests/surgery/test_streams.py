"""Two residual streams of different lengths: neither is corrected for what the other lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from prunepath.statistics.sums import Statistics
from prunepath.surgery.refit import Consumer
from prunepath.surgery.sequential import refit_sequentially_
from prunepath.surgery.stream import Stream

STREAMS = {"encoder": "encoder", "decoder": "decoder"}


@torch.no_grad()
def test_a_drift_stays_in_its_stream() -> None:
    torch.manual_seed(0)
    inputs = {"encoder": torch.randn(8, 5, 4), "decoder": torch.randn(8, 3, 4)}
    dense: Any = nn.ModuleDict({name: nn.Linear(4, 6, bias=False) for name in inputs})
    outputs = {name: dense[name](value) for name, value in inputs.items()}
    statistics = Statistics()
    for name, value in inputs.items():
        statistics.add_moment_("moments", name, value)
        statistics.add_("rows", name, torch.tensor([float(value[..., 0].numel())]))
    keep = np.array([True, True, True, False])

    def decoder_weight(encoder_too: bool) -> torch.Tensor:
        names = ["encoder", "decoder"] if encoder_too else ["decoder"]
        cut: Any = nn.ModuleDict({name: nn.Linear(3, 6, bias=False) for name in inputs})
        for name in inputs:
            cut[name].weight.copy_(dense[name].weight[:, :3])

        def run() -> None:
            for name in names:
                cut[name](inputs[name][..., :3])

        refit_sequentially_(
            cut,
            Stream(
                outputs={name: outputs[name] for name in names},
                run=run,
                skip_first=False,
                names=STREAMS,
            ),
            {name: dense[name].weight for name in names},
            [Consumer(name, keep) for name in names],
            statistics,
        )
        weight: torch.Tensor = cut["decoder"].weight
        return weight.clone()

    assert torch.equal(decoder_weight(True), decoder_weight(False))
