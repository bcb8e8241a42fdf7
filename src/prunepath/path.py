"""The artefact of a search: a total order of all units, what it cost to find, and its provenance.

One safetensors file, `path.safetensors`, three tensors and a JSON header; the format is written
down in docs/path-format.md. Statistics for the refit lie beside it and are not needed to read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prunepath.errors import PathFileError
from prunepath.structure.encoding import structure_from_dict, structure_to_dict
from prunepath.structure.units import Structure, UnitGroup

if TYPE_CHECKING:
    from prunepath.methods.method import Companion

__all__ = ["FORMAT_VERSION", "PATH_FILE", "Provenance", "SolutionPath"]

FORMAT_VERSION = 2
PATH_FILE = "path.safetensors"

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a path comes from; every field ends up in the header.

    Args:
        method: registered method name, for example `"spp"`.
        method_config: the method's settings, JSON-ready.
        model_id: what the user called the model.
        model_fingerprint: sha256 over all weights.
        data: description of the calibration data.
        data_fingerprint: sha256 over the model inputs made of it.
        objective: `"kl"` or `"task"`.
        seed: seed of every random draw.
        library_version: version of prunepath that wrote it.
        tokens: calibration tokens the search saw; as many as samples where a sample has no tokens.
        samples: calibration samples the search saw; 0 where a file does not say.
        task: name of the task the model was searched for.
        extra: anything a method wants to keep (step counts, losses); JSON-ready.
        recipe: the recipe it was searched by, field by field; empty where a file does
            not say.
    """

    method: str
    method_config: Mapping[str, Any]
    model_id: str
    model_fingerprint: str
    data: str
    data_fingerprint: str
    objective: str
    seed: int
    library_version: str
    tokens: int
    samples: int = 0
    task: str = "causal-lm"
    extra: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def calibration_size(self) -> str:
        """How much calibration data was seen, in words: `"16384 tokens"` or `"256 samples"`."""
        if self.tokens == self.samples:
            return f"{self.samples} samples"
        return f"{self.tokens} tokens"


@dataclass(frozen=True, kw_only=True)
class SolutionPath:
    """The order in which units matter.

    Args:
        structure: the model's unit groups and costs.
        damage: group name -> estimated loss increase when the unit is removed at its place in
            the order; non-decreasing from the first unit removed to the last within a group.
        entry_time: group name -> selection time; small enters first and matters most.
        rank: group name -> place in the total order over all groups; 0 matters most, no ties.
        provenance: how it was made.
        folder: where it was read from or written to; statistics for the refit lie there.
        companions: what its method keeps beside it, file name -> what is written; empty where the
            path was read.

    Example:
        >>> path = SolutionPath.from_pretrained("smollm2-path")  # doctest: +SKIP
        >>> path.provenance.method  # doctest: +SKIP
        'spp'
    """

    structure: Structure
    damage: Mapping[str, FloatArray]
    entry_time: Mapping[str, FloatArray]
    rank: Mapping[str, NDArray[np.int64]]
    provenance: Provenance
    folder: Path | None = field(default=None, compare=False)
    companions: Mapping[str, Companion] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        # What the file holds: a path in memory equals the same path read back.
        for field_name, dtype in (("damage", np.float32), ("entry_time", np.float32)):
            values = {k: np.asarray(v, dtype=dtype) for k, v in getattr(self, field_name).items()}
            object.__setattr__(self, field_name, values)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over everything the file holds."""
        return _checksum(self._tensors(), self._header())

    @property
    def order(self) -> str:
        """`"damage per cost"`, or `"damage"` where damages order units of all costs already."""
        return str(self.provenance.extra.get("order", "damage per cost"))

    @property
    def together(self) -> tuple[tuple[str, ...], ...]:
        """Names of groups of one unit each that leave in one step (the sub-layers of a layer)."""
        return tuple(tuple(names) for names in self.provenance.extra.get("together", ()))

    @cached_property
    def removal_order(self) -> list[tuple[str, int]]:
        """All units, (group name, unit index), first removed first."""
        pairs = [(name, unit) for name, ranks in self.rank.items() for unit in range(len(ranks))]
        ranks = np.concatenate([self.rank[name] for name in self.rank])
        return [pairs[i] for i in np.argsort(-ranks, kind="stable")]

    def order_in(self, group: UnitGroup) -> NDArray[np.int64]:
        """Units of one group, first removed first."""
        return np.argsort(-self.rank[group.name], kind="stable")

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `path.safetensors` and its companions into a folder, atomically.

        Returns:
            The file of the path.
        """
        from safetensors.numpy import save

        from prunepath.files import atomic_write

        tensors = self._tensors()
        header = self._header()
        header["checksum"] = _checksum(tensors, header)
        target = Path(folder) / PATH_FILE
        blob = save(tensors, metadata={"prunepath": json.dumps(header, sort_keys=True)})
        for name, companion in self.companions.items():
            companion.save(target.parent / name)
        with atomic_write(target) as handle:
            handle.write_bytes(blob)
        return target

    @classmethod
    def from_pretrained(cls, source: str | Path, **hub: Any) -> SolutionPath:
        """Read a path from a folder, its file, or a Hub repository.

        Args:
            source: folder that holds `path.safetensors`, that file, or a Hub id.
            hub: passed to `huggingface_hub.hf_hub_download` (revision, token, cache_dir).

        Raises:
            PathFileError: missing, truncated, tampered with, or from a newer version.
        """
        file = _locate(source, hub)
        header, tensors = _read(file)
        version = int(header["format_version"])
        try:
            if header.pop("checksum") != _checksum(tensors, header):
                raise PathFileError(
                    f"the path file {file} does not match its own checksum; it was damaged or "
                    "edited, so search again or fetch it anew"
                )
            structure = structure_from_dict(header["structure"])
            provenance = Provenance(**header["provenance"])
            sizes = [group.num_units for group in structure.groups]
            split = {key: _split(tensors[key], structure, sizes) for key in _KEYS}
            if sorted(tensors["rank"].tolist()) != list(range(sum(sizes))):
                raise ValueError("its ranks are not a total order")
        except PathFileError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if version < FORMAT_VERSION:
                raise PathFileError(
                    f"the path file {file} has format {version} of an older prunepath, and this "
                    f"one writes {FORMAT_VERSION}; search again"
                ) from None
            raise PathFileError(
                f"the path file {file} is not readable as a solution path ({error}); it was "
                "damaged or edited, so search again or fetch it anew"
            ) from None
        return cls(
            structure=structure,
            damage=split["damage"],
            entry_time=split["entry_time"],
            rank={name: ranks.astype(np.int64) for name, ranks in split["rank"].items()},
            provenance=provenance,
            folder=file.parent,
        )

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the path file to the Hub; returns the URL of the commit."""
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            file = self.save_pretrained(folder)
            commit = api.upload_file(path_or_fileobj=file, path_in_repo=PATH_FILE, repo_id=repo_id)
        return str(commit.commit_url)

    def check_weights(self, fingerprint: str, model_id: str) -> None:
        """Refuse weights the path was not searched on.

        Raises:
            PathFileError: the fingerprints differ.
        """
        expected = self.provenance.model_fingerprint
        if fingerprint != expected:
            raise PathFileError(
                f"this path belongs to '{self.provenance.model_id}' with weights "
                f"{expected[:12]}, and '{model_id}' has weights {fingerprint[:12]}; pass the model "
                "the path was searched on, in the same dtype, or search this one"
            )

    def _tensors(self) -> dict[str, NDArray[Any]]:
        names = [group.name for group in self.structure.groups]
        return {
            "damage": np.concatenate([self.damage[n] for n in names]),
            "entry_time": np.concatenate([self.entry_time[n] for n in names]),
            "rank": np.concatenate([self.rank[n] for n in names]).astype(np.int32),
        }

    def _header(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "structure": structure_to_dict(self.structure),
            "provenance": asdict(self.provenance),
        }


_KEYS = ("damage", "entry_time", "rank")


def _split(flat: NDArray[Any], structure: Structure, sizes: list[int]) -> dict[str, NDArray[Any]]:
    if flat.shape != (sum(sizes),):
        raise ValueError(f"{flat.shape} values for {sum(sizes)} units")
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return {group.name: part for group, part in zip(structure.groups, parts, strict=True)}


def _checksum(tensors: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for key in sorted(tensors):
        digest.update(f"{key}{tensors[key].dtype.str}{tensors[key].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[key]).tobytes())
    return digest.hexdigest()


def _locate(source: str | Path, hub: Mapping[str, Any]) -> Path:
    file = Path(source)
    if file.is_dir():
        file = file / PATH_FILE
    if file.is_file():
        return file
    if Path(source).exists() or file.suffix == ".safetensors" or not _looks_like_hub_id(source):
        raise PathFileError(
            f"there is no solution path at '{source}' (no file {file}); run "
            "`prunepath search MODEL -o DIR` first and pass that DIR"
        )
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(source), PATH_FILE, **hub))
    except (OSError, ValueError) as error:
        raise PathFileError(
            f"'{source}' is neither a folder with {PATH_FILE} nor a Hub repository that has one "
            f"({type(error).__name__}); run `prunepath search MODEL -o DIR` and pass that DIR"
        ) from None


def _looks_like_hub_id(source: str | Path) -> bool:
    text = str(source)
    return not text.startswith((".", "/", "~")) and text.count("/") == 1


def _read(file: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as handle:
            metadata = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise PathFileError(
            f"the path file {file} cannot be read ({error}); it is truncated or not a safetensors "
            "file, so search again or fetch it anew"
        ) from None
    try:
        header = json.loads(metadata["prunepath"])
        version = int(header["format_version"])
    except (KeyError, TypeError, ValueError):
        raise PathFileError(
            f"the file {file} has no prunepath header; it is some other safetensors file, so pass "
            "the folder that `prunepath search` wrote"
        ) from None
    if version > FORMAT_VERSION:
        raise PathFileError(
            f"the path file {file} has format {version} and this prunepath reads up to "
            f"{FORMAT_VERSION}; upgrade prunepath"
        )
    return header, tensors
