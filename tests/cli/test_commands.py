"""The commands on a tiny model: what they print, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import prunepath
from prunepath.cli.main import app
from prunepath.cli.parse import numbers, settings, words
from prunepath.errors import RequestError
from tests.api import fixtures

SEARCH = [f"--{name.replace('_', '-')}={value}" for name, value in fixtures.SEARCH.items()]


def call(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result


def as_json(*arguments: Any) -> Any:
    result = call(*arguments, "--json", "--quiet")
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_version() -> None:
    assert call("--version").stdout == f"prunepath {prunepath.__version__}\n"


def test_methods() -> None:
    lines = [line.split() for line in call("methods").stdout.splitlines() if line.strip()]
    rows = {words[0]: words[1:] for words in lines}
    assert set(rows) >= {"fisher", "magnitude", "optin", "random", "spp", "taylor"}
    assert rows["magnitude"][:3] == ["data-free", "nothing", "none"]
    assert rows["spp"][:3] == ["gradients", "samples", "sequential"]
    assert rows["taylor"][:4] == ["gradients", "samples", "with", "labels"]
    assert "arXiv" in rows["taylor"]
    assert "--set dynamics=surrogate" in call("methods", "spp").stdout
    text = call("methods", "random+sequential").stdout
    assert text.startswith("random+sequential: a random order")
    assert "  refit: sequential" in text.splitlines()
    assert "cost forward-only, needs samples" in text, "the repair takes a pass"


def test_search_then_the_same_path_as_in_python(
    tmp_path: Path, model_folder: Path, text_file: Path, path_folder: Path
) -> None:
    result = call("search", model_folder, "-o", tmp_path / "path", "--data", text_file, *SEARCH)
    assert f"written to {tmp_path / 'path'}" in result.stdout
    assert "units of" in result.stdout
    assert "next: prunepath extract" in result.stdout
    assert "Loading weights" not in result.output
    one, two = (folder / "path.safetensors" for folder in (tmp_path / "path", path_folder))
    assert one.read_bytes() == two.read_bytes()


def test_search_settings_and_json(tmp_path: Path, model_folder: Path, text_file: Path) -> None:
    found = as_json(
        *("search", model_folder, "-o", tmp_path / "path", "--data", text_file, *SEARCH),
        *("--set", "rounds=4", "--set", "curvature=fisher", "--seed", "3"),
    )
    assert found["path"] == str(tmp_path / "path")
    made = found["provenance"]
    assert made["method_config"]["rounds"] == 4
    assert made["method_config"]["curvature"] == "fisher"
    assert made["seed"] == 3
    assert found["units"] == sum(found["units_by_kind"].values())


@pytest.mark.usefixtures("no_fresh_process")
def test_extract_says_what_it_did(tmp_path: Path, path_folder: Path) -> None:
    result = call("extract", path_folder, "--params", "85%", "-o", tmp_path / "small")
    assert result.stderr.startswith("layout per-layer: it will load with prunepath")
    text = result.stdout
    assert text.startswith("reached params 85%: ")
    assert "of at most" in text
    assert "refit: sequential, strength" in text
    assert "held-out loss with" in text
    assert "checked: read back in a fresh process with prunepath" in text
    for row in ("parameters", "MACs for 512 tokens", "weights", "KV cache per token"):
        assert row in text
    assert "seconds: allocate" in text
    assert f"next: prunepath evaluate {tmp_path / 'small'}" in text
    assert f"--model hf --model_args pretrained={tmp_path / 'small'}" in text


@pytest.mark.usefixtures("no_fresh_process")
def test_extract_uniform_as_json(tmp_path: Path, path_folder: Path) -> None:
    found = as_json(
        *("extract", path_folder, "--ratio", "0.3", "--layout", "uniform"),
        *("--kinds", "ffn_channel,query_head", "--refit", "none", "-o", tmp_path / "small"),
    )
    assert found["loader"] == "transformers"
    assert found["reached"] <= found["limit"]
    assert found["cost"]["params"] < found["dense"]["params"]
    assert found["refit"] == {"kind": "none"}


@pytest.mark.usefixtures("no_fresh_process")
def test_extract_by_the_other_rule_and_rearranged(tmp_path: Path, path_folder: Path) -> None:
    wish = ("extract", path_folder, "--macs", "80%", "--rule", "knapsack", "--rearrange", "kwon")
    text = call(*wish, "--refit", "scales", "-o", tmp_path / "small").stdout
    assert "damage kept by the rule knapsack: " in text
    assert "(by the order " in text
    assert "rearranged: swaps " in text
    assert "refit: scales, strength" in text
    card = (tmp_path / "small" / "README.md").read_text()
    assert "rule `knapsack`" in card
    assert "- rearranged: swaps " in card
    found = as_json(*wish, "--refit", "none", "-o", tmp_path / "same")
    assert found["rule"] == "knapsack"
    assert found["damage_kept"]["knapsack"] >= found["damage_kept"]["order"]
    assert found["rearranged"]["damage after"] <= found["rearranged"]["damage before"]


def test_inspect_a_model_and_a_path(model_folder: Path, path_folder: Path) -> None:
    text = call("inspect", model_folder).stdout
    for word in ("ffn_channel", "qk_coordinate", "left alone", "model.embed_tokens", "norm"):
        assert word in text
    assert "a solution path of" in call("inspect", path_folder).stdout
    found = as_json_of_inspect(path_folder)
    assert found["provenance"]["method"] == "spp"
    assert {item["module"] for item in found["left_alone"]} >= {"lm_head", "model.norm"}


def as_json_of_inspect(source: Path) -> Any:
    return json.loads(call("inspect", source, "--json").stdout)


def test_evaluate(model_folder: Path, text_file: Path) -> None:
    wish = ("evaluate", model_folder, "--data", text_file, "--windows", 2, "--window", 32)
    text = call(*wish).stdout
    assert "at window 32 (62 tokens of" in text
    assert "tokens/s writing 32" in text
    assert "cost: " in text
    found = as_json(*wish, "--no-speed")
    assert found["speed"] is None
    assert found["perplexity"]["window"] == 32


def test_curve(tmp_path: Path, path_folder: Path, text_file: Path) -> None:
    wish = (
        *("curve", path_folder, "-o", tmp_path, "--points", "0.1,0.2", "--refit", "none"),
        *("--data", text_file, "--windows", 2, "--window", 32),
    )
    text = call(*wish).stdout
    assert "per-layer 0.2" in text
    assert f"written to {tmp_path / 'curve.csv'}" in text
    assert [row["name"] for row in as_json(*wish)] == ["dense", "per-layer 0.1", "per-layer 0.2"]


def test_words_and_numbers() -> None:
    assert words(["a,b", " c ", ""]) == ["a", "b", "c"]
    assert words(None) == []
    assert numbers(["0.1,0.2", "0.3"], "--points") == [0.1, 0.2, 0.3]
    with pytest.raises(RequestError, match="--points takes numbers .* for example"):
        numbers(["0.1,many"], "--points")


def test_settings() -> None:
    assert settings(["a=1", "b=0.5", "c=true", "d=word", "e=null", 'f="7"', "g=a=b"]) == {
        **{"a": 1, "b": 0.5, "c": True, "d": "word", "e": None, "f": "7", "g": "a=b"}
    }
    with pytest.raises(RequestError, match="--set rounds is not KEY=VALUE"):
        settings(["rounds"])
    with pytest.raises(RequestError, match="is not a single value"):
        settings(["rounds=[1]"])
