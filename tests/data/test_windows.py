"""Windows hold the tokens of the whole text, however little of it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from prunepath.data import (
    TextSource,
    TokenWindows,
    disjoint,
    open_texts,
    shared_windows,
    token_windows,
)
from prunepath.data import (
    windows as windows_module,
)
from prunepath.data.samples import fingerprint_of
from prunepath.errors import DataError, RequestError


def whole(tokenizer: Any, text: str) -> torch.Tensor:
    return torch.tensor(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("chars_per_token", [1, 2, 6, 100])
def test_prefix_gives_the_tokens_of_the_whole_text(
    tiny_tokenizer: Any, tiny_text: str, monkeypatch: pytest.MonkeyPatch, chars_per_token: int
) -> None:
    monkeypatch.setattr(windows_module, "_CHARS_PER_TOKEN", chars_per_token)
    got = token_windows([tiny_text] * 30, tiny_tokenizer, window=16, count=5, skip=3)
    ids = whole(tiny_tokenizer, "\n\n".join([tiny_text] * 30))
    assert torch.equal(got.ids, ids[3 * 16 : 8 * 16].view(5, 16))
    assert got.ids.dtype == torch.int64


def test_all_windows(tiny_tokenizer: Any, tiny_text: str) -> None:
    got = token_windows([tiny_text], tiny_tokenizer, window=16)
    ids = whole(tiny_tokenizer, tiny_text)
    assert got.tokens_read == len(ids)
    assert got.num_windows == len(got) == len(ids) // 16
    assert got.num_tokens == got.num_windows * got.window
    assert torch.equal(got.ids.flatten(), ids[: got.num_tokens])


def test_only_what_is_needed_is_read(tiny_tokenizer: Any, tiny_text: str) -> None:
    num_read = 0

    def pieces() -> Any:
        nonlocal num_read
        for _ in range(10_000):
            num_read += 1
            yield tiny_text

    source = TextSource("endless", pieces)
    token_windows(source, tiny_tokenizer, window=16, count=4)
    assert num_read < 10


def test_text_that_ends_exactly_is_used_to_the_end(tiny_tokenizer: Any, tiny_text: str) -> None:
    ids = whole(tiny_tokenizer, tiny_text)
    got = token_windows([tiny_text], tiny_tokenizer, window=len(ids), count=1)
    assert torch.equal(got.ids[0], ids)


def test_default_special_tokens_come_once(tiny_bos_tokenizer: Any, tiny_text: str) -> None:
    got = token_windows([tiny_text, tiny_text], tiny_bos_tokenizer, window=16)
    bos = tiny_bos_tokenizer.bos_token_id
    assert int(got.ids[0, 0]) == bos
    assert int((got.ids == bos).sum()) == 1


def test_cleaning_comes_before_tokenising(tiny_tokenizer: Any, tiny_text: str) -> None:
    marked = tiny_text.replace("the", "<the>")
    got = token_windows(
        [marked], tiny_tokenizer, window=16, count=4, clean=lambda t: t.replace("<the>", "the")
    )
    assert torch.equal(got.ids.flatten(), whole(tiny_tokenizer, tiny_text)[:64])


def test_too_short(tiny_tokenizer: Any) -> None:
    num_tokens = len(tiny_tokenizer("a path")["input_ids"])
    message = f"4 windows of 16 tokens need at least 64 tokens, but .* has only {num_tokens}; give"
    with pytest.raises(DataError, match=message):
        token_windows(["a path"], tiny_tokenizer, window=16, count=4)
    with pytest.raises(DataError, match="after 2 skipped ones need at least 96 tokens"):
        token_windows(["a path"], tiny_tokenizer, window=16, count=4, skip=2)
    with pytest.raises(DataError, match="all windows of 16 tokens need at least 16"):
        token_windows(["a path"], tiny_tokenizer, window=16)


@pytest.mark.parametrize("wrong", [{"window": 1}, {"count": 0}, {"skip": -1}])
def test_numbers_out_of_range(tiny_tokenizer: Any, wrong: dict[str, int]) -> None:
    with pytest.raises(RequestError, match="was asked for|were asked for"):
        token_windows(["a path"], tiny_tokenizer, **wrong)


def test_fingerprint_is_of_content_and_shape(tiny_tokenizer: Any, tiny_text: str) -> None:
    one = token_windows([tiny_text], tiny_tokenizer, window=16, count=4)
    same = token_windows([tiny_text * 2], tiny_tokenizer, window=16, count=4)
    other_shape = token_windows([tiny_text], tiny_tokenizer, window=32, count=2)
    other_text = token_windows([tiny_text], tiny_tokenizer, window=16, count=4, skip=1)
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, other_shape.fingerprint, other_text.fingerprint}) == 3
    assert one.fingerprint == fingerprint_of({"input_ids": one.ids})


def test_descriptions(tiny_tokenizer: Any, tiny_text: str) -> None:
    got = token_windows([tiny_text], tiny_tokenizer, window=16, count=4, skip=1)
    assert got.description == ("texts given as an iterable, 4 x 16 tokens after the first 16")


def test_batches_and_parts(tiny_tokenizer: Any, tiny_text: str) -> None:
    got = token_windows([tiny_text], tiny_tokenizer, window=16, count=5)
    assert [len(batch) for batch in got.batches(2)] == [2, 2, 1]
    assert torch.equal(torch.cat([batch.inputs["input_ids"] for batch in got.batches(2)]), got.ids)
    part = got.rows(3, 5)
    assert isinstance(part, TokenWindows)
    assert torch.equal(part.ids, got.ids[3:])
    assert part.fingerprint != got.fingerprint
    with pytest.raises(RequestError, match="samples 4 to 6 were asked for, but there are 5"):
        got.rows(4, 6)


def test_file_and_packaged_text(tiny_tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(open_texts()), encoding="utf-8")
    from_file = token_windows(path, tiny_tokenizer, window=64, count=8)
    packaged = token_windows(None, tiny_tokenizer, window=64, count=8)
    assert from_file.fingerprint == packaged.fingerprint


def test_overlap_is_found_also_when_shifted(tiny_tokenizer: Any) -> None:
    calibration = token_windows(None, tiny_tokenizer, window=64, count=10)
    evaluation = token_windows(None, tiny_tokenizer, window=64, count=10, split="evaluation")
    assert disjoint(calibration, evaluation)
    assert shared_windows(calibration, evaluation) == ()

    text = "".join(open_texts())
    # Other words first: the same text, but its windows begin elsewhere.
    shifted = token_windows(["Now then. " + text], tiny_tokenizer, window=64, count=30)
    later = calibration.rows(5, 8)
    assert isinstance(later, TokenWindows)
    shared = shared_windows(later, shifted)
    assert not disjoint(later, shifted)
    assert set(shared) <= {4, 5, 6, 7, 8, 9}
    assert len(shared) >= 3


def test_overlap_span_is_checked(tiny_tokenizer: Any) -> None:
    short = token_windows(None, tiny_tokenizer, window=16, count=2)
    with pytest.raises(RequestError, match="span=32 was asked for, but the windows have 16"):
        disjoint(short, short)
    assert shared_windows(short, short, span=16) == (0, 1)
