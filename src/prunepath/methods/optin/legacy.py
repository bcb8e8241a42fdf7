"""The factors of OPTIN's released code, for comparison with it and for nothing else.

They are in the code and not in the paper. Each unit's answer term is rescaled by a whole power of
ten, to Lambda = 1 / lambda_kd below its manifold term; then units are multiplied by an envelope
that falls along the *index* of a head or channel, which says nothing about it, and by a constant in
the last layer. One thing differs: where the answer term is already the larger one, the language
code multiplies by the running mean of earlier factors, which depends on the order of scoring; here
it is the median of all factors. The vision code leaves such terms as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunepath.methods.method import FloatArray
from prunepath.structure.units import Structure, UnitGroup

if TYPE_CHECKING:
    from prunepath.methods.optin.config import OptinConfig

__all__ = ["legacy_damage"]

_TEMPERATURE = 4.0  # only its square enters, and logits are not divided by it
_HEADS = ("head", "query_head", "kv_group")


def legacy_damage(
    structure: Structure,
    md: Mapping[str, FloatArray],
    kd: Mapping[str, FloatArray],
    config: OptinConfig,
    samples: int,
) -> dict[str, FloatArray]:
    """Damages as the released code for language or vision weighs them.

    Args:
        structure: the groups.
        md: group -> manifold term, (U,).
        kd: group -> answer term, mean per loss row, (U,).
        config: `legacy` and `lambda_kd` are read.
        samples: samples of the batch, over which the code sums.
    """
    answer = {name: _TEMPERATURE**2 * samples * values for name, values in kd.items()}
    ratio = {
        name: np.divide(
            md[name], values, out=np.zeros_like(values), where=(values > 0) & (md[name] > 0)
        )
        for name, values in answer.items()
    }
    factor = {name: _decades(values, config.lambda_kd) for name, values in ratio.items()}
    language = config.legacy == "language"
    scaled = np.concatenate([factor[name][ratio[name] > 1] for name in factor])
    usual = float(np.median(scaled)) if language and len(scaled) else 1.0
    last = _last_layers(structure)
    damage = {}
    for group in structure.groups:
        name = group.name
        weight = np.where(ratio[name] > 1, factor[name], usual)
        total = md[name] + weight * answer[name]
        envelope = _language if language else _vision
        damage[name] = np.asarray(
            total * envelope(group, group.layer == last[group.series]), dtype=np.float64
        )
    return damage


def _decades(ratio: FloatArray, lambda_kd: float) -> FloatArray:
    wanted = np.log10(lambda_kd) if lambda_kd > 0 else -np.inf
    safe = np.where(ratio > 1, ratio, 1.0)
    if not np.isfinite(wanted):
        return np.zeros_like(ratio)
    return np.asarray(10.0 ** np.trunc(np.log10(safe) + wanted), dtype=np.float64)


def _language(group: UnitGroup, last: bool) -> NDArray[np.float64]:
    ending = 0.5 if last else 1.0
    if group.kind in _HEADS:
        return 0.5 * ending * np.geomspace(10, 1, group.num_units)
    if group.kind == "ffn_channel":
        return ending * np.geomspace(100, 1, group.num_units)
    return np.full(group.num_units, ending)


def _vision(group: UnitGroup, last: bool) -> NDArray[np.float64]:
    return np.full(group.num_units, 1e-4 if last and group.kind == "ffn_channel" else 1.0)


def _last_layers(structure: Structure) -> dict[str, int]:
    last: dict[str, int] = {}
    for group in structure.groups:
        last[group.series] = max(group.layer, last.get(group.series, 0))
    return last
