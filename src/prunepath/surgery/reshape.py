"""Give an empty model the sizes a cut left, so that saved tensors fit: the loading of surgery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prunepath.errors import ModelError
from prunepath.structure.axes import AxisLayout
from prunepath.structure.discover import dense_sizes
from prunepath.structure.families import FAMILIES
from prunepath.structure.units import PlaceInfo
from prunepath.surgery.runtime import install_

__all__ = ["RECORD_VERSION", "reshape_"]

RECORD_VERSION = 1


def reshape_(model: nn.Module, config: Any, record: Mapping[str, Any]) -> None:
    """Resize a freshly built dense model to recorded sizes; weights are left unset.

    Args:
        model: a model built from the dense config, usually on the meta device; changed.
        config: its config.
        record: the `prunepath` entry of a saved config.

    Raises:
        ModelError: the record is newer than this library or does not fit the model.
    """
    if int(record["format_version"]) > RECORD_VERSION:
        raise ModelError(
            f"this model was cut by a newer prunepath (record format {record['format_version']}, "
            f"this one reads up to {RECORD_VERSION}); upgrade prunepath"
        )
    family = FAMILIES[record["family"]]
    dense = dense_sizes(family, config)
    layers: Any = model.get_submodule(family.layers)
    if len(record["layers"]) != len(layers):
        raise ModelError(
            f"the saved record has {len(record['layers'])} layers and the config {len(layers)}; "
            "config.json was edited, so extract the model again"
        )
    for index, sizes in enumerate(record["layers"]):
        for table in family.places:
            path = f"{family.layers}.{index}.{table.module}"
            for name, texts in table.linears.items():
                _resize_(model, f"{path}.{name}", texts, sizes)
            place = PlaceInfo(
                path=path,
                layer=index,
                tensors=(),
                native=table.native,
                runtime=table.runtime,
                attributes=table.attributes,
            )
            factors = {
                n for texts in table.linears.values() for text in texts for n in text.split()
            }
            install_(
                model,
                place,
                {name: dense[name] for name in factors},
                {name: int(sizes.get(name, dense[name])) for name in factors},
            )


def _resize_(model: nn.Module, name: str, texts: tuple[str, str], sizes: Mapping[str, int]) -> None:
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    out_features, in_features = (
        AxisLayout.parse(text, sizes).size if text else width
        for text, width in zip(texts, (old.out_features, old.in_features), strict=True)
    )
    if (out_features, in_features) == (old.out_features, old.in_features):
        return
    parent, _, attribute = name.rpartition(".")
    weight = torch.empty(
        (out_features, in_features), dtype=old.weight.dtype, device=old.weight.device
    )
    linear = nn.Linear(1, 1, bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=old.weight.requires_grad)
    if old.bias is not None:
        linear.bias = nn.Parameter(old.bias.detach().new_empty(out_features))
    linear.out_features, linear.in_features = out_features, in_features
    setattr(model.get_submodule(parent), attribute, linear)
