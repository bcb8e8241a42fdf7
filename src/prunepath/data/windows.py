"""Text -> windows of tokens: the samples of language models.

Windows are consecutive and do not overlap, cut from one long row of tokens, as perplexity is
usually measured. Only as much text is read and tokenised as the windows need.

Shapes: N windows, W tokens per window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunepath.data.samples import Samples
from prunepath.data.sources import TextInput, TextSource, open_texts
from prunepath.errors import DataError, RequestError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TokenWindows", "token_windows"]

# First guess at characters per token, above what English (about 4.5) and code need, so that one
# reading usually suffices. Texts with longer tokens are read on.
_CHARS_PER_TOKEN = 6
# A prefix of a text gives the tokens of the whole text except near its end, where a word, or with
# some vocabularies a few words, may be cut. Tokens this close to the end of a prefix are not used.
_MARGIN_TOKENS = 64
# Extra windows are picked from this many times as many.
_SPREAD = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenWindows(Samples):
    """Consecutive windows of one text; the only input is `input_ids`, (N, W), int64.

    Args:
        tokens_read: how many tokens were available: all of the source if it was read to its end,
            else those of the prefix that was enough.
    """

    tokens_read: int

    @property
    def ids(self) -> Tensor:
        """Token ids (N, W)."""
        return self.inputs["input_ids"]

    @property
    def num_windows(self) -> int:
        """Number of windows N."""
        return len(self)

    @property
    def window(self) -> int:
        """Tokens per window W."""
        return int(self.ids.shape[1])


def token_windows(
    source: TextInput | TextSource,
    tokenizer: Any,
    *,
    window: int = 512,
    count: int | None = None,
    extra: int = 0,
    skip: int = 0,
    field: str = "text",
    split: str | None = None,
    clean: Callable[[str], str] | None = None,
) -> TokenWindows:
    """Cut a text into consecutive windows of tokens.

    The text is tokenised as one whole, with the special tokens the tokenizer adds to one text by
    default. Where `count` is given, only a prefix of the text is read, generous enough that its
    tokens equal those of the whole text.

    Args:
        source: a text source, or anything `open_texts` takes.
        tokenizer: a tokenizer of transformers.
        window: tokens per window W.
        count: how many windows; None takes all there are.
        extra: how many more to take after those, as far as the text goes; they are spread evenly
            over up to 8 times as many windows, because a repair gains from varied text.
        skip: how many windows to pass over first.
        field: which field of an object holds the text.
        split: split of a dataset id or of the packaged text.
        clean: applied to the text before it is tokenised, `clean_wikitext` for example.

    Returns:
        `count` windows, and up to `extra` more.

    Raises:
        DataError: the text is too short, or cannot be read (see `open_texts`).
        RequestError: a number is out of range.
    """
    import torch

    if window < 2:
        raise RequestError(f"window={window} was asked for; use at least 2 tokens per window")
    if skip < 0 or (count is not None and count < 1):
        raise RequestError(
            f"count={count} and skip={skip} were asked for; use count >= 1 and skip >= 0"
        )
    text = (
        source if isinstance(source, TextSource) else open_texts(source, field=field, split=split)
    )
    needed = None if count is None else (skip + count) * window
    ids = _tokens(text, tokenizer, needed and needed + _SPREAD * extra * window, clean)
    there = len(ids) // window - skip
    num_windows = there if count is None else count
    if num_windows < 1 or len(ids) < (skip + num_windows) * window:
        wanted = f"{'all' if count is None else count} windows of {window} tokens"
        after = f" after {skip} skipped ones" if skip else ""
        raise DataError(
            f"{wanted}{after} need at least {needed or (skip + 1) * window} tokens, but "
            f"{text.description} has only {len(ids)}; give more text, or ask for fewer or "
            "shorter windows"
        )
    rows = ids[skip * window : (skip + num_windows) * window].reshape(num_windows, window).clone()
    if count is not None and extra:
        rows = torch.cat([rows, _spread(ids[(skip + count) * window :], window, extra)])
    description = f"{text.description}, {len(rows)} x {window} tokens"
    if skip:
        description += f" after the first {skip * window}"
    return TokenWindows(inputs={"input_ids": rows}, description=description, tokens_read=len(ids))


def _spread(ids: Tensor, window: int, most: int) -> Tensor:
    """At most so many windows of a row of tokens, at even distances, (N, W)."""
    there = min(len(ids) // window, _SPREAD * most)
    taken = min(most, there)
    rows = ids[: there * window].reshape(there, window)
    return rows[[index * there // taken for index in range(taken)]] if taken else rows[:0]


def _tokens(
    text: TextSource, tokenizer: Any, needed: int | None, clean: Callable[[str], str] | None
) -> Tensor:
    """Token ids (T,) of the whole text, or of a prefix with at least `needed` reliable ones."""
    import torch

    pieces = iter(text)
    read: list[str] = []
    num_chars = 0
    goal_chars = None if needed is None else needed * _CHARS_PER_TOKEN
    while True:
        exhausted = True
        for piece in pieces:
            # A piece may be a whole book: keep what the goal needs, and the rest for another turn.
            read.append(piece)
            num_chars += len(piece)
            if goal_chars is not None and num_chars >= goal_chars:
                exhausted = False
                break
        whole = "".join(read)
        prefix = whole if goal_chars is None else whole[:goal_chars]
        exhausted = exhausted and len(prefix) == len(whole)
        prefix = prefix if clean is None else clean(prefix)
        # verbose=False: the tokenizer would warn that a book is longer than the model's context.
        ids = tokenizer(prefix, return_tensors="pt", verbose=False)["input_ids"][0].to(torch.int64)
        if exhausted or needed is None:
            return torch.as_tensor(ids)
        if len(ids) >= needed + _MARGIN_TOKENS:
            return torch.as_tensor(ids[: len(ids) - _MARGIN_TOKENS])
        goal_chars = 2 * (goal_chars or 1)
