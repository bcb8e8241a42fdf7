"""A latency table is made of one layer, so it is refused where layers differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunepath.errors import RequestError
from prunepath.evaluation.latency import forward_seconds, latency_table
from prunepath.tasks import TASKS


def test_one_table_for_every_call(
    tiny_llama: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, task = tiny_llama(), TASKS["causal-lm"]
    first, second = (latency_table(model, task, 8) for _ in range(2))
    assert first.fixed_seconds == second.fixed_seconds
    assert set(first.grids) == {"self_attn", "mlp"}
    assert forward_seconds(model, task, 8) > 0


def test_layers_of_several_widths_are_refused() -> None:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=16, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2
    )
    model = SwinForImageClassification(config).eval()
    with pytest.raises(RequestError, match="a 'swin' model has layers of several kinds, .*--macs"):
        latency_table(model, TASKS["image-classification"], 8)
