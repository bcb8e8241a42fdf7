"""The curve is a readable PNG, written as a whole or not at all."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from prunepath.errors import MissingExtraError, RequestError
from prunepath.report import SizeRow, curve, save_curve

DENSE_PARAMS = 134_515_008


def row(ratio: float, quality: float | None) -> SizeRow:
    params = int(DENSE_PARAMS - ratio * 106_000_000)
    return SizeRow(
        name="dense" if ratio == 0 else f"{ratio}",
        ratio=ratio,
        params=params,
        macs=1,
        weight_bytes=4 * params,
        kv_bytes_per_token=1,
        quality=quality,
    )


DENSE = row(0, 28.59)
NEAR = [row(0.1, 31.0), row(0.3, 41.5), row(0.2, 35.5)]
FAR = [row(0.2, 1188.0), row(0.5, 2e7)]


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_writes_a_png_of_readme_width(tmp_path: Path) -> None:
    path = tmp_path / "out" / "curve.png"
    save_curve(path, {"spp": NEAR, "random": FAR}, dense=DENSE, title="a title")
    width, height = png_size(path)
    assert width >= 1000
    assert 0.4 < height / width < 0.8
    assert [found.name for found in path.parent.iterdir()] == ["curve.png"]


def test_axis_is_logarithmic_only_for_a_large_range() -> None:
    (near,) = curve._draw({"spp": curve._measured(NEAR)}, DENSE, None).axes
    (far,) = curve._draw({"random": curve._measured(FAR)}, DENSE, None).axes
    assert near.get_yscale() == "linear"
    assert far.get_yscale() == "log"


def test_lines_run_from_dense_to_small_and_are_named() -> None:
    (axes,) = curve._draw({"spp": curve._measured(NEAR)}, DENSE, "a title").axes
    line = axes.lines[0]
    shares = [float(x) for x in line.get_xdata()]
    assert shares[0] == 100.0
    assert shares == sorted(shares, reverse=True)
    assert [float(y) for y in line.get_ydata()] == [28.59, 31.0, 35.5, 41.5]
    left, right = axes.get_xlim()
    assert left > right, "sizes shrink to the right"
    texts = {text.get_text() for text in axes.texts}
    assert {"spp", "dense 28.59"} <= texts
    assert axes.get_xlabel() == "parameters, % of dense (135M)"
    assert axes.get_ylabel() == "perplexity (lower is better)"
    assert axes.get_title(loc="left") == "a title"


def test_labels_of_close_lines_do_not_overlap() -> None:
    heights = curve._spread([0.50, 0.51, 0.505, 0.9])
    ordered = sorted(heights)
    gaps = [upper - lower for lower, upper in pairwise(ordered)]
    assert min(gaps) >= curve._LABEL_GAP - 1e-3
    assert heights[3] == 0.9
    assert heights.index(min(heights)) == 0


def test_dense_without_a_quality_is_left_out() -> None:
    (axes,) = curve._draw({"spp": curve._measured(NEAR)}, row(0, None), None).axes
    assert len(axes.lines[0].get_xdata()) == 3


def test_one_point_is_enough(tmp_path: Path) -> None:
    save_curve(tmp_path / "a.png", {"spp": NEAR[:1]}, dense=row(0, None))
    save_curve(tmp_path / "b.png", {"spp": [row(0.1, 30.0), row(0.2, math.inf)]}, dense=DENSE)
    assert png_size(tmp_path / "a.png")[0] == png_size(tmp_path / "b.png")[0]


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no size has a quality; measure it first"):
        save_curve(tmp_path / "a.png", {"spp": [row(0.1, None)]}, dense=DENSE)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r'drawing a curve needs the package matplotlib.*pip install "prunepath\[plot\]"'
    with pytest.raises(MissingExtraError, match=message):
        save_curve(tmp_path / "a.png", {"spp": NEAR}, dense=DENSE)


def test_pyplot_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    save_curve(tmp_path / "a.png", {"spp": NEAR}, dense=DENSE)


def test_accuracy_falls_from_the_dense_line_at_the_top() -> None:
    dense, *rest = (
        replace(row(ratio, value), metric="accuracy", higher_is_better=True)
        for ratio, value in ((0, 92.5), (0.2, 92.3), (0.4, 10.0))
    )
    (axes,) = curve._draw({"spp": curve._measured(rest)}, dense, None).axes
    assert axes.get_ylabel() == "accuracy (higher is better)"
    assert axes.get_yscale() == "linear"
    low, high = axes.get_ylim()
    assert low < 10.0
    assert high > 92.5
    (name,) = (text for text in axes.texts if text.get_text() == "spp")
    top = axes.transData + axes.transAxes.inverted()
    assert name.get_position()[1] < top.transform((100, 92.5))[1], "below the line of the dense"
