"""The solution path as a file: equal bit for bit when read back, written whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prunepath.errors import DiskError, PathFileError
from prunepath.path import PATH_FILE, SolutionPath
from prunepath.structure.discover import discover
from tests.conformance.families import FAMILIES, structure_of, tiny
from tests.conformance.paths import random_path


@pytest.fixture
def path() -> SolutionPath:
    return random_path(structure_of("llama-untied"))


def assert_equal(left: SolutionPath, right: SolutionPath) -> None:
    assert left.structure == right.structure
    assert left.provenance == right.provenance
    for field in ("damage", "entry_time", "rank"):
        mine, theirs = getattr(left, field), getattr(right, field)
        assert list(mine) == list(theirs)
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype, (field, name)
            assert mine[name].tobytes() == theirs[name].tobytes(), (field, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_read_back_bit_for_bit(family: str, tmp_path: Path) -> None:
    path = random_path(structure_of(family))
    path.save_pretrained(tmp_path / "first")
    again = SolutionPath.from_pretrained(tmp_path / "first")
    again.save_pretrained(tmp_path / "second")
    assert_equal(again, SolutionPath.from_pretrained(tmp_path / "second"))
    assert again.removal_order == path.removal_order
    written = [(tmp_path / folder / PATH_FILE).read_bytes() for folder in ("first", "second")]
    assert written[0] == written[1]


def test_what_a_search_made_is_what_is_read(path: SolutionPath, tmp_path: Path) -> None:
    file = path.save_pretrained(tmp_path)
    assert file == tmp_path / PATH_FILE
    for source in (tmp_path, str(tmp_path), file):
        assert_equal(path, SolutionPath.from_pretrained(source))
    assert [item.name for item in tmp_path.iterdir()] == [PATH_FILE]


def test_orders(path: SolutionPath) -> None:
    order = path.removal_order
    ranks = [path.rank[name][unit] for name, unit in order]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(order)) == sum(group.num_units for group in path.structure.groups)
    for group in path.structure.groups:
        mine = [unit for name, unit in order if name == group.name]
        assert path.order_in(group).tolist() == mine


def test_a_135m_model_s_path_is_below_a_megabyte(tmp_path: Path) -> None:
    smollm2 = {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    }
    with torch.device("meta"):
        structure = discover(tiny("Llama", **smollm2))
    assert structure.num_params == 134_515_008
    file = random_path(structure).save_pretrained(tmp_path)
    assert file.stat().st_size < 1_000_000


@pytest.mark.parametrize("where", ["", "missing", "missing/path.safetensors"])
def test_missing(where: str, tmp_path: Path) -> None:
    message = "there is no solution path at .* run `prunepath search MODEL -o DIR` first"
    with pytest.raises(PathFileError, match=message):
        SolutionPath.from_pretrained(tmp_path / where)


def test_missing_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def offline(*args: Any, **kwargs: Any) -> str:
        raise OSError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(PathFileError, match=r"'someone/path' is neither a folder .* nor a Hub"):
        SolutionPath.from_pretrained("someone/path")


def test_weights_of_another_model(path: SolutionPath) -> None:
    path.check_weights("0123456789abcdef" * 4, "mine")
    message = "belongs to 'tiny' with weights 0123456789ab, and 'mine' has weights ffffffffffff; "
    with pytest.raises(PathFileError, match=message + "pass the model the path was searched on"):
        path.check_weights("f" * 64, "mine")


def test_a_place_that_cannot_be_written(path: SolutionPath, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match="cannot write"):
        path.save_pretrained(tmp_path / "file")


def test_an_old_path_survives_a_failed_write(
    path: SolutionPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.save_pretrained(tmp_path).read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    other = replace(path, provenance=replace(path.provenance, seed=1))
    with pytest.raises(DiskError, match="no space is left on the disk"):
        other.save_pretrained(tmp_path)
    assert (tmp_path / PATH_FILE).read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == [PATH_FILE]
