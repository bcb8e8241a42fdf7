"""The table of all scores, kept apart as they were measured, and how they become damages.

Both terms are stored for every unit: the manifold distance at each feature behind it (L_MD), and
the distance of the answer (L_KD). What OPTIN adds up,

    I_j = sum_{z > i} L_MD(z, j) + lambda L_KD(j),

is formed afterwards, so the weight, the norm over features and the horizon can change without
running the model again. Deviations from the released code: lambda is one number for all units,
lambda_kd times the ratio of both medians, where the code rescales each unit's L_KD to a fixed
decade of its L_MD (which leaves of it the mantissa alone); and no factor depends on the index of
a unit. `legacy` puts both back, to compare.

Shapes: U units of a group, Z features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prunepath.errors import PathFileError, RequestError
from prunepath.methods.method import FloatArray
from prunepath.methods.optin.legacy import legacy_damage
from prunepath.structure.units import Structure

if TYPE_CHECKING:
    from prunepath.methods.optin.config import OptinConfig

__all__ = ["SCORES_FILE", "TrajectoryScores"]

SCORES_FILE = "scores.safetensors"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class TrajectoryScores:
    """Both terms of every unit.

    Args:
        features: names of the features, in call order.
        first: group -> index of the first feature behind its gate.
        md: group -> L_MD at each feature, 0 before the first, float64 (U, Z).
        kd: group -> distance of the answer, mean per loss row, float64 (U,).
        exact: group -> which units were removed and measured; the others are estimates. Bool (U,).
        facts: what it was measured on: `samples`, `horizon` (features recorded behind a unit; 0:
            all); JSON-ready.
    """

    features: tuple[str, ...]
    first: Mapping[str, int]
    md: Mapping[str, FloatArray]
    kd: Mapping[str, FloatArray]
    exact: Mapping[str, NDArray[np.bool_]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def combine(self, config: OptinConfig, structure: Structure) -> dict[str, FloatArray]:
        """Damage of every unit.

        Args:
            config: `lambda_kd`, `md_norm`, `horizon` and `legacy` are read.
            structure: whose groups these are; `legacy` asks for kinds and layers.

        Returns:
            group -> (U,), at least 0.

        Raises:
            RequestError: features beyond those that were recorded are asked for.
        """
        recorded = int(self.facts.get("horizon", 0))
        if recorded and not 0 < config.horizon <= recorded:
            raise RequestError(
                f"horizon is {config.horizon or '0 (all)'}, and these scores hold {recorded} "
                "features behind every unit; ask for at most that, or search again with that "
                "horizon"
            )
        md = {name: self._over_features(name, config) for name in self.md}
        if config.legacy != "none":
            samples = int(self.facts["samples"])
            return legacy_damage(structure, md, self.kd, config, samples)
        weight = config.lambda_kd * self._scale(
            {group.name: md[group.name] for group in structure.groups if not group.is_sublayer}
        )
        return {name: values + weight * self.kd[name] for name, values in md.items()}

    def _over_features(self, name: str, config: OptinConfig) -> FloatArray:
        """Sum or mean over the features behind a group, (U,)."""
        first, end = self.first[name], len(self.features)
        if config.horizon:
            end = min(end, first + config.horizon)
        table = self.md[name][:, first:end]
        total = np.asarray(table.sum(axis=1), dtype=np.float64)
        if config.md_norm == "sum":
            return total
        # Features of another tower come behind a unit and know nothing of it.
        reached = int((table > 0).any(axis=0).sum())
        return total / max(1, reached)

    def _scale(self, md: Mapping[str, FloatArray]) -> float:
        """Ratio of both terms' medians over the units where both are above 0."""
        all_md = np.concatenate([md[name] for name in md])
        all_kd = np.concatenate([self.kd[name] for name in md])
        both = (all_md > 0) & (all_kd > 0)
        if not both.any():  # one of them says nothing at all: there is nothing to bring together
            return 1.0
        return float(np.median(all_md[both]) / np.median(all_kd[both]))

    @cached_property
    def checksum(self) -> str:
        """sha256 over header and tables."""
        digest = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        for name, values in sorted(self._tensors().items()):
            digest.update(f"{name}{values.dtype.str}{values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def save(self, file: Path) -> None:
        """Write everything to one safetensors file, atomically.

        Raises:
            DiskError: it cannot be written.
        """
        from safetensors.numpy import save

        from prunepath.files import atomic_write

        header = {**self._header(), "checksum": self.checksum}
        blob = save(self._tensors(), metadata={"prunepath": json.dumps(header, sort_keys=True)})
        with atomic_write(file) as beside:
            beside.write_bytes(blob)

    @classmethod
    def load(cls, file: Path) -> TrajectoryScores:
        """Read `save`'s file back.

        Raises:
            PathFileError: missing, truncated, damaged, or from a newer version.
        """
        from safetensors import SafetensorError, safe_open

        tables: dict[str, dict[str, Any]] = {"md": {}, "kd": {}, "exact": {}}
        try:
            with safe_open(file, framework="numpy") as handle:
                header = json.loads((handle.metadata() or {})["prunepath"])
                for key in handle.keys():  # noqa: SIM118 - not a mapping
                    table, _, name = key.partition("/")
                    tables[table][name] = handle.get_tensor(key)
            if int(header["format_version"]) > _VERSION:
                raise PathFileError(
                    f"the scores file {file} has format {header['format_version']} and this "
                    f"prunepath reads up to {_VERSION}; upgrade prunepath"
                )
            found = cls(
                features=tuple(header["features"]),
                first={name: int(index) for name, index in header["first"].items()},
                facts=header["facts"],
                **tables,
            )
            damaged = header["checksum"] != found.checksum
        except PathFileError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise PathFileError(
                f"the scores file {file} cannot be read ({error}); it is missing or damaged, so "
                "search again"
            ) from None
        if damaged:
            raise PathFileError(
                f"the scores file {file} does not match its own checksum; it was damaged or "
                "edited, so search again"
            )
        return found

    def _tensors(self) -> dict[str, NDArray[Any]]:
        tables = {"md": self.md, "kd": self.kd, "exact": self.exact}
        return {
            f"{table}/{name}": np.ascontiguousarray(values)
            for table, groups in tables.items()
            for name, values in groups.items()
        }

    def _header(self) -> dict[str, Any]:
        return {
            "format_version": _VERSION,
            "features": list(self.features),
            "first": dict(self.first),
            "facts": dict(self.facts),
        }
