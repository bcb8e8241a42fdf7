"""Numbers as people read them: `95.1M`, `269 MB`, `1,234`. Decimal units throughout.

Messages, tables and plots all format through this module, so the same quantity reads the same
everywhere. 1 MB is 10**6 bytes, as in the names of budgets.
"""

from __future__ import annotations

import math

__all__ = ["format_bytes", "format_count", "format_number"]

_COUNT_SUFFIXES = ("", "K", "M", "B", "T")
_BYTE_SUFFIXES = ("B", "KB", "MB", "GB", "TB")


def format_count(count: float) -> str:
    """A count in three significant digits.

    Args:
        count: how many parameters, multiply-accumulates or tokens.

    Returns:
        Digits and a suffix K, M, B or T.

    Example:
        >>> format_count(95_123_456), format_count(1_500), format_count(12)
        ('95.1M', '1.50K', '12')
    """
    value, suffix = _scaled(count, _COUNT_SUFFIXES)
    return value + suffix


def format_bytes(num_bytes: float) -> str:
    """A size in three significant digits, in decimal units.

    Args:
        num_bytes: the size in bytes.

    Returns:
        Digits, a space and B, KB, MB, GB or TB.

    Example:
        >>> format_bytes(269_030_016), format_bytes(23_040), format_bytes(512)
        ('269 MB', '23.0 KB', '512 B')
    """
    value, suffix = _scaled(num_bytes, _BYTE_SUFFIXES)
    return f"{value} {suffix}"


def format_number(value: float) -> str:
    """A measured value such as a perplexity: readable from 1.234 up to millions.

    Args:
        value: any real number; infinity and NaN are allowed.

    Returns:
        Two decimals below 100, one below 1,000, thousands separators to a million, then `2.1e+07`.

    Example:
        >>> format_number(28.589), format_number(1188.2), format_number(2.13e7)
        ('28.59', '1,188', '2.1e+07')
    """
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size < 100:
        return f"{value:.2f}"
    if size < 1_000:
        return f"{value:.1f}"
    return f"{value:,.0f}" if size < 1_000_000 else f"{value:.1e}"


def _scaled(value: float, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """Divide by 1000 until below 1000; the digits never read `1000` of a smaller unit."""
    power = 0
    scaled = float(value)
    # 999.5 would print as 1000, so it already belongs to the next unit.
    while abs(scaled) >= 999.5 and power < len(suffixes) - 1:
        scaled /= 1000
        power += 1
    if power == 0:
        return f"{scaled:.0f}", suffixes[0]
    decimals = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:.{decimals}f}", suffixes[power]
