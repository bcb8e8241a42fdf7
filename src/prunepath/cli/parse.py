"""Words of the command line as values of Python; what they mean is checked where they are used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prunepath.errors import RequestError

__all__ = ["hub_options", "integers", "numbers", "schedule", "settings", "words"]


def hub_options(**given: Any) -> dict[str, Any]:
    """The options for the Hub that were given."""
    return {name: value for name, value in given.items() if value is not None}


def words(texts: Sequence[str] | None) -> list[str]:
    """`["a,b", "c"]` as `["a", "b", "c"]`: a repeated flag whose values may hold commas."""
    return [word.strip() for text in texts or () for word in text.split(",") if word.strip()]


def numbers(texts: Sequence[str], flag: str) -> list[float]:
    """The same, read as numbers.

    Raises:
        RequestError: a word is not a number.
    """
    try:
        return [float(word) for word in words(texts)]
    except ValueError as error:
        raise RequestError(
            f"{flag} takes numbers ({error}); for example {flag} 0.1,0.3,0.5"
        ) from None


def integers(texts: Sequence[str] | None, flag: str, example: str) -> list[int]:
    """The same, read as whole numbers.

    Raises:
        RequestError: a word is not a whole number.
    """
    try:
        return [int(word) for word in words(texts)]
    except ValueError as error:
        raise RequestError(
            f"{flag} takes whole numbers ({error}); for example {flag} {example}"
        ) from None


def schedule(texts: Sequence[str] | None, flag: str) -> list[int] | str:
    """Numbers of every block, or the word `scored`.

    Raises:
        RequestError: neither.

    Example:
        >>> schedule(["4,0,2"], "--token-schedule"), schedule(["scored"], "--token-schedule")
        ([4, 0, 2], 'scored')
    """
    if words(texts) == ["scored"]:
        return "scored"
    return integers(texts, flag, "8,4,4,0")


def settings(
    texts: Sequence[str] | None, flag: str = "--set", example: str = "rounds=24"
) -> dict[str, Any]:
    """`["rounds=24", "curvature=fisher"]` as a mapping; values are JSON scalars, else words.

    Args:
        texts: what stood behind the flag, once or more often.
        flag: for messages, as is the example.
        example: of what may stand there.

    Raises:
        RequestError: a text has no `=`, or its value is not a scalar.

    Example:
        >>> settings(["rounds=24", "curvature=fisher", "two_sided=true"])
        {'rounds': 24, 'curvature': 'fisher', 'two_sided': True}
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise RequestError(
                f"{flag} {text} is not KEY=VALUE; write for example {flag} {example}"
            )
        found[name.strip()] = _scalar(name, value.strip(), flag)
    return found


def _scalar(name: str, text: str, flag: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict | list):
        raise RequestError(f"{flag} {name}={text} is not a single value; give a number or a word")
    return value
