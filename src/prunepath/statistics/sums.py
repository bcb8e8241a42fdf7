"""What one pass over calibration data measures: sums and a count, so that shards merge by adding.

Everything is kept as plain sums over tokens. Means are formed where they are used, in float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from prunepath.errors import NumericsError, PathFileError, RequestError

__all__ = ["STATISTICS_FILE", "Statistics", "add_outer_products_"]

STATISTICS_FILE = "statistics.safetensors"


@dataclass
class Statistics:
    """Sums over calibration tokens.

    Args:
        tokens: how many terms of the loss the gradient sums are over: tokens of a language model,
            samples of a classifier.
        windows: how many batches have been counted.
        rows: consumer -> how many rows `inputs` and `moments` are over, (1,), float64; more than
            `tokens` where more windows, or several rows a sample, went in.
        fisher: group -> sum over tokens of squared gate gradients, (units,).
        fisher_blocks: group -> sum over tokens of outer products of gate gradients,
            (units, units); only for groups without a consumer that are small enough.
        fisher_fourths: the same of squared gate gradients, float64.
        gradient_sizes: group -> sum over samples of absolute gate gradients, (units,); only of
            groups with a consumer, where the loss has one term per sample.
        gradient_fourths: the same of their fourth powers, float64.
        gradient: group -> sum over tokens of gate gradients, (units,).
        gradient_windows: group -> sum over windows of the absolute window gradient, (units,).
        inputs: consumer -> sum of its inputs, (in,).
        moments: consumer -> sum of outer products of its inputs, (in, in).
        output_gradients: consumer -> sum of outer products of its output gradients, (out, out).
        input_squares: linear map -> sum of its squared inputs, (in,).
        weight_gradients: linear map and side (`weights.weight_key`) -> sum over samples of |w g|,
            g the sample's weight gradient, added up over the other side, (out,) or (in,).
        weight_fisher: the same of (w g)^2.
        influence: layer or sub-layer -> how far it turns the residual stream: sums over tokens of
            the cosine distance and of the angle in parts of pi, and the number of tokens, (3,).
        blocks: stack of L layers -> the same between what enters a layer and what leaves another,
            (3, L, L), zeros where the second is not behind the first.
    """

    tokens: int = 0
    windows: int = 0
    rows: dict[str, Tensor] = field(default_factory=dict)
    fisher: dict[str, Tensor] = field(default_factory=dict)
    fisher_blocks: dict[str, Tensor] = field(default_factory=dict)
    fisher_fourths: dict[str, Tensor] = field(default_factory=dict)
    gradient_sizes: dict[str, Tensor] = field(default_factory=dict)
    gradient_fourths: dict[str, Tensor] = field(default_factory=dict)
    gradient: dict[str, Tensor] = field(default_factory=dict)
    gradient_windows: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)
    output_gradients: dict[str, Tensor] = field(default_factory=dict)
    input_squares: dict[str, Tensor] = field(default_factory=dict)
    weight_gradients: dict[str, Tensor] = field(default_factory=dict)
    weight_fisher: dict[str, Tensor] = field(default_factory=dict)
    influence: dict[str, Tensor] = field(default_factory=dict)
    blocks: dict[str, Tensor] = field(default_factory=dict)

    def add_(self, table: str, key: str, value: Tensor) -> None:
        """Add to one sum, on the device the sum lives on."""
        sums: dict[str, Tensor] = getattr(self, table)
        if key in sums:
            sums[key] = sums[key].add_(value.to(sums[key].device))
        else:
            sums[key] = value.detach().clone()

    def add_moment_(self, table: str, key: str, rows: Tensor) -> None:
        """Add the outer products of the rows of (..., n), at least in float32."""
        sums: dict[str, Tensor] = getattr(self, table)
        flat = rows.detach().reshape(-1, rows.shape[-1])
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        if key not in sums:
            sums[key] = flat.new_zeros(flat.shape[1], flat.shape[1])
        add_outer_products_(sums[key], flat)

    def merge_(self, other: Statistics) -> None:
        """Add the sums of another shard."""
        self.tokens += other.tokens
        self.windows += other.windows
        for table, key, value in other.items():
            self.add_(table, key, value)

    def items(self) -> Iterator[tuple[str, str, Tensor]]:
        """All sums as (table, key, tensor), in a fixed order."""
        for table in _TABLES:
            sums: Mapping[str, Tensor] = getattr(self, table)
            for key in sorted(sums):
                yield table, key, sums[key]

    def only(self, keep: Callable[[str], bool]) -> Statistics:
        """The same statistics with some tables left out; the sums are shared until added to."""
        smaller = Statistics(tokens=self.tokens, windows=self.windows, rows=dict(self.rows))
        for table, key, value in self.items():
            if keep(table) and table != "rows":
                getattr(smaller, table)[key] = value
        return smaller

    def mean(self, table: str, key: str) -> Tensor:
        """One sum as a mean, float64: per row of a consumer's inputs, or per term of the loss.

        Raises:
            RequestError: the sum was not formed.
            NumericsError: it is not finite.
        """
        sums: Mapping[str, Tensor] = getattr(self, table)
        count = float(self.rows.get(key, 0.0)) if table in _BY_ROW else float(self.tokens)
        if table in _BY_ROW and key in self.rows:
            count = max(1.0, count)  # a router sent this consumer nothing: its sums are zero
        if key not in sums or not count:
            raise RequestError(
                f"the sums '{table}' of '{key}' are needed, and the statistics hold {len(sums)} "
                f"such sums over {count:.0f} rows; collect them with what the method's wanted() "
                "asks for"
            )
        mean = sums[key].double() / count
        if not torch.isfinite(mean).all():
            raise NumericsError(
                f"the sums '{table}' of '{key}' hold NaN or infinity; check the model's weights "
                "and the calibration data, or load the model in float32 or bfloat16"
            )
        return mean

    @property
    def num_bytes(self) -> int:
        """Bytes of all sums."""
        return sum(value.numel() * value.element_size() for _, _, value in self.items())

    def save(self, file: Path, **header: str) -> None:
        """Write all sums to one safetensors file, atomically."""
        from safetensors.torch import save_file

        from prunepath.files import atomic_write

        tensors = {f"{table}/{key}": value.contiguous() for table, key, value in self.items()}
        counts = {
            "tokens": self.tokens,
            "windows": self.windows,
            **header,
        }
        with atomic_write(file) as beside:
            save_file(tensors, beside, metadata={"prunepath": json.dumps(counts)})

    @classmethod
    def load(cls, file: Path) -> tuple[Statistics, dict[str, str]]:
        """Read `save`'s file back; returns the statistics and the extra header entries.

        Raises:
            PathFileError: missing, truncated or not such a file.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as handle:
                header = json.loads((handle.metadata() or {})["prunepath"])
                found = cls()
                for name in _COUNTS:
                    setattr(found, name, int(header.pop(name)))
                for name in handle.keys():  # noqa: SIM118 - not a mapping
                    table, _, key = name.partition("/")
                    getattr(found, table)[key] = handle.get_tensor(name)
        except (SafetensorError, OSError, KeyError, AttributeError, ValueError) as error:
            raise PathFileError(
                f"the statistics file {file} cannot be read ({error}); it is missing or damaged, "
                "so search again, or extract with --refit none"
            ) from None
        return found, header


_BLOCK = 384


def add_outer_products_(total: Tensor, flat: Tensor) -> None:
    """total += flat^T flat, every pair of columns multiplied once: the result is symmetric, and
    its two halves are kept equal bit for bit.

    Args:
        total: (n, n); changed.
        flat: rows (N, n) of its type.
    """
    width = flat.shape[1]
    if width <= _BLOCK:
        total.addmm_(flat.T, flat)
        return
    for start in range(0, width, _BLOCK):
        stop = min(start + _BLOCK, width)
        block = total[start:stop, :stop].addmm_(flat[:, start:stop].T, flat[:, :stop])
        total[:start, start:stop] = block[:, :start].T


_COUNTS = ("tokens", "windows")
_BY_ROW = ("inputs", "moments")
_TABLES = (
    "rows",
    "fisher",
    "fisher_blocks",
    "fisher_fourths",
    "gradient_sizes",
    "gradient_fourths",
    "gradient",
    "gradient_windows",
    "inputs",
    "moments",
    "output_gradients",
    "input_squares",
    "weight_gradients",
    "weight_fisher",
    "influence",
    "blocks",
)
