"""`curve`: rows, files, and going on where it stopped."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import pytest

import prunepath
from prunepath.api.search import search
from prunepath.errors import BudgetError, DataError, RequestError
from tests.api.fixtures import SEARCH

CURVE: dict[str, Any] = {"points": [0.1, 0.3], "windows": 2, "window": 32}


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every perplexity that is measured from now on adds an item."""
    # By its full name: the function of the same name hides the module in its package.
    perplexity = importlib.import_module("prunepath.evaluation.perplexity")
    measured: list[Any] = []
    original = perplexity.perplexity

    def counted(*args: Any, **kwargs: Any) -> Any:
        measured.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(perplexity, "perplexity", counted)
    return measured


def test_rows_csv_and_png(tmp_path: Path, path_folder: Path, text_file: Path) -> None:
    rows = prunepath.curve(
        path_folder,
        output=tmp_path / "curve",
        layouts=["per-layer", "uniform"],
        data=text_file,
        refit="moments",
        **CURVE,
    )
    assert [row.name for row in rows] == [
        "dense",
        "per-layer 0.1",
        "per-layer 0.3",
        "uniform 0.1",
        "uniform 0.3",
    ]
    assert all(row.quality is not None and row.quality > 1 for row in rows)
    assert {(row.metric, row.higher_is_better) for row in rows} == {("perplexity", False)}
    assert rows[0].params > rows[1].params > rows[2].params
    assert all(row.ratio >= float(row.name.split()[1]) for row in rows[1:]), "never over budget"
    with (tmp_path / "curve" / "curve.csv").open() as file:
        assert [line["name"] for line in csv.DictReader(file)] == [row.name for row in rows]
    assert (tmp_path / "curve" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_measures_nothing(
    tmp_path: Path, path_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish: dict[str, Any] = {"output": tmp_path, "data": text_file, "refit": "none"}
    rows = prunepath.curve(path_folder, **wish, **CURVE)
    measured = count_passes(monkeypatch)
    assert prunepath.curve(path_folder, **wish, **CURVE) == rows
    assert measured == []
    more = prunepath.curve(path_folder, **wish, **{**CURVE, "points": [0.1, 0.2, 0.3]})
    assert len(measured) == 1, "only the new point"
    assert [rows[0], rows[1], rows[2]] == [more[0], more[1], more[3]]


def test_interrupted_it_goes_on_after_the_last_point(
    tmp_path: Path, path_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("prunepath.api.curve")
    wish: dict[str, Any] = {"output": tmp_path, "data": text_file, "refit": "none"}
    original = module._row

    def interrupted(name: str, *rest: Any) -> Any:
        if name.endswith("0.3"):
            raise KeyboardInterrupt
        return original(name, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_row", interrupted)
        prunepath.curve(path_folder, **wish, **CURVE)
    assert not (tmp_path / "curve.csv").exists()
    measured = count_passes(monkeypatch)
    assert len(prunepath.curve(path_folder, **wish, **CURVE)) == 3
    assert len(measured) == 1


def test_another_path_of_the_same_model_is_measured_anew(
    tmp_path: Path,
    path_folder: Path,
    model_folder: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search(model_folder, output=tmp_path / "other", data=text_file, method="random", **SEARCH)
    wish: dict[str, Any] = {"output": tmp_path / "curve", "data": text_file, "refit": "none"}
    prunepath.curve(path_folder, **wish, **CURVE)
    measured = count_passes(monkeypatch)
    prunepath.curve(tmp_path / "other", **wish, **CURVE)
    assert len(measured) >= 2, "rows of the first path were taken for those of the second"


def test_speed_is_measured_where_it_was_not(
    tmp_path: Path, path_folder: Path, text_file: Path
) -> None:
    wish: dict[str, Any] = {"output": tmp_path, "data": text_file, "refit": "none"}
    prunepath.curve(path_folder, **wish, **CURVE)
    rows = prunepath.curve(path_folder, speed=True, **wish, **CURVE)
    assert all(row.decode_tokens_per_second for row in rows)


@pytest.mark.parametrize(
    ("wish", "error", "match"),
    [
        ({"points": []}, RequestError, "no points were given; pass ratios such as --points"),
        ({"points": [1.3]}, BudgetError, "--ratio 1.3 is the fraction of block parameters"),
        ({"points": [0.1, 0.99]}, BudgetError, "the smallest model this path can give has"),
        ({"layouts": ["even"]}, RequestError, "unknown layout 'even'"),
        ({"layouts": []}, RequestError, "no layouts were given"),
        ({"refit": "best"}, RequestError, "unknown refit 'best'; use one of sequential"),
        ({"data": ["few words"]}, DataError, "give more text, or ask for fewer"),
    ],
    ids=str,
)
def test_malformed_requests_leave_nothing(
    wish: dict[str, Any],
    error: type[Exception],
    match: str,
    tmp_path: Path,
    path_folder: Path,
    text_file: Path,
) -> None:
    with pytest.raises(error, match=match):
        prunepath.curve(
            path_folder, **{"output": tmp_path / "c", "data": text_file, **CURVE, **wish}
        )
    assert list(tmp_path.iterdir()) == []
