"""OPTIN through the verbs: search, weigh the scores anew, extract."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import prunepath
from prunepath.cli.main import app
from prunepath.errors import DiskError, PathFileError, RequestError
from prunepath.path import SolutionPath
from tests.api.fixtures import SEARCH

WISH: dict[str, Any] = {"method": "optin", **SEARCH}
QUICK: dict[str, Any] = {"probes": 4}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, text_file: Path) -> Path:
    """What `search --method optin` writes; read it, never write into it."""
    folder = tmp_path_factory.mktemp("optin") / "path"
    prunepath.search(model_folder, output=folder, data=text_file, config=QUICK, **WISH)
    return folder


def orders(path: SolutionPath) -> dict[str, np.ndarray]:
    return {f"{t}/{n}": v for t in ("damage", "rank") for n, v in getattr(path, t).items()}


def test_the_scores_lie_beside_the_path(scored: Path) -> None:
    names = {file.name for file in scored.iterdir()}
    assert {"path.safetensors", "scores.safetensors", "statistics.safetensors"} <= names
    path = SolutionPath.from_pretrained(scored)
    assert path.provenance.objective == "kl"
    assert path.provenance.method_config["mode"] == "hybrid"
    assert not list(scored.parent.glob(".*"))


@pytest.mark.parametrize("mode", ["exact", "gn"])
def test_rescoring_is_searching_again(
    mode: str, model_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    """Where which units are measured does not depend on the weights, as in hybrid."""

    def searched(name: str, **config: Any) -> SolutionPath:
        return prunepath.search(
            model_folder, output=tmp_path / name, data=text_file, config=config, **WISH
        )

    changes = {"md_norm": "mean", "lambda_kd": 0.01}
    before = searched("before", mode=mode, probes=4)
    made = prunepath.rescore(before, output=tmp_path / "mean", config=changes)
    fresh = searched("fresh", mode=mode, probes=4, **changes)
    assert any(not np.array_equal(v, orders(before)[k]) for k, v in orders(made).items())
    for key, values in orders(made).items():
        np.testing.assert_array_equal(values, orders(fresh)[key])
    assert made.provenance.method_config == fresh.provenance.method_config
    assert made.provenance.extra["rescored_from"] == before.provenance.method_config
    again = SolutionPath.from_pretrained(tmp_path / "mean")
    assert again.provenance == made.provenance
    assert {file.name for file in (tmp_path / "mean").iterdir()} == {
        file.name for file in (tmp_path / "before").iterdir()
    }


def test_back_again_is_where_it_began(scored: Path, tmp_path: Path) -> None:
    there = prunepath.rescore(scored, output=tmp_path / "there", config={"horizon": 1})
    assert there.provenance.method_config["horizon"] == 1
    back = prunepath.rescore(there, output=tmp_path / "back", config={"horizon": 0})
    before = SolutionPath.from_pretrained(scored)
    for key, values in orders(back).items():
        np.testing.assert_array_equal(values, orders(before)[key])
    assert back.provenance.extra["rescored_from"] == before.provenance.method_config


@pytest.mark.usefixtures("no_fresh_process")
def test_extractions_find_all_they_need(scored: Path, tmp_path: Path) -> None:
    prunepath.rescore(scored, output=tmp_path / "path", config={"md_norm": "mean"})
    for folder in (scored, tmp_path / "path"):
        made = prunepath.extract(folder, macs="80%", multiple=1, floor=1, refit="sequential")
        assert made.allocation.reached <= made.allocation.limit
        assert made.refit["kind"] == "sequential"


def test_what_was_measured_cannot_be_changed(scored: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"tokens=5 was asked for, and the scores were measured"):
        prunepath.rescore(scored, output=tmp_path / "new", config={"tokens": 5})
    with pytest.raises(RequestError, match="this method has no setting 'envelope'"):
        prunepath.rescore(scored, output=tmp_path / "new", config={"envelope": 5})
    with pytest.raises(RequestError, match="unknown md_norm 'max'"):
        prunepath.rescore(scored, output=tmp_path / "new", config={"md_norm": "max"})
    assert not (tmp_path / "new").exists()
    same = prunepath.rescore(scored, output=tmp_path / "same", config={"tokens": 768})
    assert same.provenance.method_config["tokens"] == 768


def test_a_path_without_scores_is_refused(path_folder: Path, scored: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"searched with 'spp', which keeps no scores"):
        prunepath.rescore(path_folder, output=tmp_path / "new")
    shutil.copytree(scored, tmp_path / "copy")
    (tmp_path / "copy" / "scores.safetensors").unlink()
    with pytest.raises(PathFileError, match=r"the scores file .* so search again"):
        prunepath.rescore(tmp_path / "copy", output=tmp_path / "new")
    with pytest.raises(DiskError, match="copy"):
        prunepath.rescore(scored, output=tmp_path / "copy")


@pytest.mark.parametrize("standardise", ["relative", "zscore"])
def test_standardising_a_path_is_searching_again(
    standardise: str, model_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    wish: dict[str, Any] = {"data": text_file, "method": "fisher", **SEARCH}
    prunepath.search(model_folder, output=tmp_path / "plain", **wish)
    config = {"standardise": standardise}
    made = prunepath.rescore(tmp_path / "plain", output=tmp_path / "made", config=config)
    fresh = prunepath.search(model_folder, output=tmp_path / "fresh", config=config, **wish)
    assert made.order == fresh.order == ("damage" if standardise == "zscore" else "damage per cost")
    for name, ranks in fresh.rank.items():
        np.testing.assert_array_equal(made.damage[name], fresh.damage[name])
        np.testing.assert_array_equal(made.rank[name], ranks)
    assert made.provenance.method_config == fresh.provenance.method_config
    plain = SolutionPath.from_pretrained(tmp_path / "plain")
    assert any(not np.array_equal(made.rank[name], plain.rank[name]) for name in made.rank)
    with pytest.raises(RequestError, match=f"this path was standardised by '{standardise}'"):
        prunepath.rescore(tmp_path / "made", output=tmp_path / "back", config={})


def test_scores_of_another_search_are_refused(
    scored: Path, model_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    prunepath.search(
        model_folder, output=other, data=text_file, config={"tokens": 9, **QUICK}, **WISH
    )
    shutil.copyfile(scored / "scores.safetensors", other / "scores.safetensors")
    with pytest.raises(PathFileError, match="belong to another search than the path beside them"):
        prunepath.rescore(other, output=tmp_path / "new")


def test_labels_are_refused_before_anything_runs(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'optin' compares with the dense model and reads no"):
        prunepath.search(
            model_folder, output=tmp_path / "new", method="optin", objective="task", data="nothing"
        )


def test_the_command(scored: Path, tmp_path: Path) -> None:
    wish = ["rescore", str(scored), "-o", str(tmp_path / "new"), "--set", "md_norm=mean"]
    result = CliRunner().invoke(app, [*wish, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["provenance"]["method_config"]["md_norm"] == "mean"
    text = CliRunner().invoke(app, [*wish, "--overwrite"])
    assert text.exit_code == 0
    assert "ordered by 'optin'" in text.output
    wrong = CliRunner().invoke(app, [*wish[:-1], "samples=3", "--overwrite"])
    assert wrong.exit_code == 2
