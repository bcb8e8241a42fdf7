"""The table reads the same on a terminal and in a README, and loses nothing in CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from rich.console import Console

from prunepath.humanize import format_bytes, format_count, format_number
from prunepath.report import SizeRow, csv_table, markdown_table, rich_table

DENSE = SizeRow(
    name="dense",
    ratio=0.0,
    params=134_515_008,
    macs=68_900_000_000,
    weight_bytes=538_060_032,
    kv_bytes_per_token=46_080,
    quality=28.594,
    prefill_tokens_per_second=1834.4,
    decode_tokens_per_second=23.46,
)
SMALL = SizeRow(
    name="spp [uniform] | 70%",
    ratio=0.3,
    params=95_100_000,
    macs=48_700_000_000,
    weight_bytes=380_000_000,
    kv_bytes_per_token=30_720,
    quality=1234.5,
)

MARKDOWN = """\
| size                 | ratio | parameters |  MACs | weights | KV cache/token | perplexity | \
prefill tok/s | decode tok/s |
| -------------------- | ----: | ---------: | ----: | ------: | -------------: | ---------: | \
------------: | -----------: |
| dense                |  0.00 |       135M | 68.9B |  538 MB |        46.1 KB |      28.59 | \
        1,834 |         23.5 |
| spp [uniform] \\| 70% |  0.30 |      95.1M | 48.7B |  380 MB |        30.7 KB |      1,234 | \
              |              |"""


def test_markdown() -> None:
    assert markdown_table([DENSE, SMALL]) == MARKDOWN


def test_columns_that_were_not_measured_are_left_out() -> None:
    heading = markdown_table([SMALL]).splitlines()[0]
    assert "perplexity" in heading
    assert "tok/s" not in heading
    assert "note" not in heading


def test_terminal() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(rich_table([DENSE, SMALL], title="SmolLM2-135M"))
    text = console.export_text()
    for part in ("SmolLM2-135M", "spp [uniform] | 70%", "538 MB", "28.59", "1,834"):
        assert part in text


def test_csv_keeps_full_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table([DENSE, SMALL]))))
    assert rows[0]["params"] == "134515008"
    assert rows[0]["quality"] == "28.594"
    assert rows[0]["metric"] == "perplexity"
    assert rows[1]["prefill_tokens_per_second"] == ""
    assert rows[1]["name"] == SMALL.name


def test_counts_and_bytes_never_show_a_thousand() -> None:
    assert [format_count(n) for n in (0, 999, 999.6, 1000, 9_994, 9_996, 99_949, 999_499)] == [
        "0", "999", "1.00K", "1.00K", "9.99K", "10.0K", "99.9K", "999K",
    ]  # fmt: skip
    assert format_count(999_600) == "1.00M"
    assert format_count(7_241_732_096) == "7.24B"
    assert format_bytes(999_999_999) == "1.00 GB"


def test_numbers() -> None:
    assert [format_number(n) for n in (3.14159, 255.04, 11235.4, 2e7)] == [
        "3.14", "255.0", "11,235", "2.0e+07",
    ]  # fmt: skip
    assert format_number(float("inf")) == "inf"


def test_the_metric_names_its_column_and_images_have_no_cache() -> None:
    rows = [
        replace(DENSE, quality=92.5, metric="accuracy", higher_is_better=True, kv_bytes_per_token=0)
    ]
    heading = markdown_table(rows).splitlines()[0]
    assert "accuracy" in heading
    assert "KV cache" not in heading
    assert "quality" in markdown_table([]).splitlines()[0]
