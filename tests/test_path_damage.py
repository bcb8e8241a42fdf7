"""Damaged, edited and foreign path files: every one is refused with a sentence that names it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save_file

from prunepath.errors import PathFileError
from prunepath.path import PATH_FILE, SolutionPath, _checksum
from tests.conformance.families import structure_of
from tests.conformance.paths import random_path


@pytest.fixture
def path() -> SolutionPath:
    return random_path(structure_of("llama-untied"))


def parts(blob: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """safetensors header, our header inside it, and the tensor bytes."""
    (length,) = struct.unpack("<Q", blob[:8])
    outer = json.loads(blob[8 : 8 + length])
    return outer, json.loads(outer["__metadata__"]["prunepath"]), blob[8 + length :]


def assembled(outer: dict[str, Any], inner: dict[str, Any], tensors: bytes) -> bytes:
    outer["__metadata__"]["prunepath"] = json.dumps(inner, sort_keys=True)
    text = json.dumps(outer).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + tensors


def edit(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def apply(blob: bytes) -> bytes:
        outer, inner, tensors = parts(blob)
        change(outer, inner)
        return assembled(outer, inner, tensors)

    return apply


def flip(offset_from_end: int) -> Callable[[bytes], bytes]:
    def apply(blob: bytes) -> bytes:
        at = len(blob) - offset_from_end
        return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]

    return apply


CHECKSUM = "does not match its own checksum; it was damaged or edited, so search again"
UNREADABLE = "cannot be read .* it is truncated or not a safetensors file, so search again"
DAMAGED = "damaged or edited, so search again or fetch it anew"
OTHER = "has no prunepath header; it is some other safetensors file, so pass the folder that"
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda blob: b"", UNREADABLE),
    "a few bytes": (lambda blob: blob[:5], UNREADABLE),
    "truncated in the header": (lambda blob: blob[:200], UNREADABLE),
    "truncated in the tensors": (lambda blob: blob[:-1], UNREADABLE),
    "half": (lambda blob: blob[: len(blob) // 2], UNREADABLE),
    "one byte more": (lambda blob: blob + b"\0", UNREADABLE),
    "text": (lambda blob: b"not a path at all, only words\n" * 9, UNREADABLE),
    "first tensor byte": (lambda blob: flip(len(parts(blob)[2]))(blob), CHECKSUM),
    "last tensor byte": (flip(1), CHECKSUM),
    "provenance": (edit(lambda o, i: i["provenance"].update(method="spp")), CHECKSUM),
    "extra key in provenance": (edit(lambda o, i: i["provenance"].update(why="x")), DAMAGED),
    "model totals": (edit(lambda o, i: i["structure"].update(num_params=1)), CHECKSUM),
    "unit count": (
        edit(lambda o, i: i["structure"]["groups"][0]["unit"].update(sizes=[2, 7])),
        DAMAGED,
    ),
    "group gone": (edit(lambda o, i: i["structure"]["groups"].pop()), DAMAGED),
    "structure gone": (edit(lambda o, i: i.pop("structure")), DAMAGED),
    "structure is a number": (edit(lambda o, i: i.update(structure=3)), DAMAGED),
    "a table is a list": (edit(lambda o, i: i["structure"].update(config_sizes=[])), DAMAGED),
    "checksum gone": (edit(lambda o, i: i.pop("checksum")), DAMAGED),
    "checksum forged": (edit(lambda o, i: i.update(checksum="0" * 64)), CHECKSUM),
    "tensor renamed": (edit(lambda o, i: o.update(damages=o.pop("damage"))), DAMAGED),
    "tensor of another type": (
        edit(lambda o, i: o["damage"].update(dtype="I" + o["damage"]["dtype"][1:])),
        DAMAGED,
    ),
    "newer format": (
        edit(lambda o, i: i.update(format_version=99)),
        "has format 99 and this prunepath reads up to 2; upgrade prunepath",
    ),
    "format is a word": (edit(lambda o, i: i.update(format_version="new")), OTHER),
    "no header": (edit(lambda o, i: [i.clear(), o["__metadata__"].clear()]), OTHER),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_noticed(case: str, path: SolutionPath, tmp_path: Path) -> None:
    change, message = DAMAGE[case]
    file = path.save_pretrained(tmp_path)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(PathFileError, match=message) as caught:
        SolutionPath.from_pretrained(tmp_path)
    assert str(file) in str(caught.value)


def test_an_unedited_file_survives_reassembly(path: SolutionPath, tmp_path: Path) -> None:
    file = path.save_pretrained(tmp_path)
    file.write_bytes(edit(lambda o, i: None)(file.read_bytes()))
    assert SolutionPath.from_pretrained(tmp_path).removal_order == path.removal_order


def test_other_safetensors_file(tmp_path: Path) -> None:
    save_file({"weight": np.ones(3, dtype=np.float32)}, tmp_path / PATH_FILE)
    with pytest.raises(PathFileError, match=OTHER):
        SolutionPath.from_pretrained(tmp_path)


def of_format_1(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """An older file: its provenance names neither task nor samples."""

    def apply(blob: bytes) -> bytes:
        outer, inner, tensors = parts(blob)
        inner["format_version"] = 1
        for name in ("task", "samples"):
            del inner["provenance"][name]
        change(inner)
        del inner["checksum"]
        arrays = load(assembled(outer, inner, tensors))
        inner["checksum"] = _checksum(arrays, inner)
        return assembled(outer, inner, tensors)

    return apply


def test_a_path_that_names_no_task_is_a_language_model_s(
    path: SolutionPath, tmp_path: Path
) -> None:
    file = path.save_pretrained(tmp_path)
    file.write_bytes(of_format_1(lambda inner: None)(file.read_bytes()))
    again = SolutionPath.from_pretrained(tmp_path)
    assert (again.provenance.task, again.provenance.samples) == ("causal-lm", 0)
    assert again.removal_order == path.removal_order


def test_an_older_structure_is_refused_with_its_format(path: SolutionPath, tmp_path: Path) -> None:
    file = path.save_pretrained(tmp_path)
    file.write_bytes(of_format_1(lambda inner: inner["structure"].pop("stacks"))(file.read_bytes()))
    with pytest.raises(PathFileError, match="has format 1 of an older prunepath, .*search again"):
        SolutionPath.from_pretrained(tmp_path)
