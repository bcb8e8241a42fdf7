"""Which columns of a table hold the texts and the label: asked for by name, or known by custom.

A file without a header line, and a row given as a tuple, have columns called `1`, `2`, `3`; those
go by position.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prunepath.errors import DataError

__all__ = ["Chosen", "Columns", "is_header"]

# How many column names a message lists.
_NUM_LISTED = 12


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a task calls its columns by custom.

    Args:
        texts: names of the text columns, one or two of them in each choice, the preferred choice
            first; lower case.
        labels: names of the label column, the preferred one first; lower case.
        by_position: cells of a row without names -> how many of them, from the left, are texts. A
            cell after those is the label.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    by_position: Mapping[int, int]

    def choose(
        self,
        names: Iterable[str],
        *,
        field: str,
        label_field: str,
        labels: bool,
        source: str,
    ) -> Chosen:
        """Decide for a table.

        Args:
            names: the columns it has.
            field: the text columns that were asked for, separated by commas; empty: by custom.
            label_field: the label column that was asked for; empty: by custom.
            labels: whether a label must be there.
            source: what to call the table in messages.

        Raises:
            DataError: a column that was asked for or is needed is not there.
        """
        there = list(names)
        if there == [str(number + 1) for number in range(len(there))] and not (
            field or label_field
        ):
            return self._by_position(there, labels, source)
        lower = {name.strip().lower(): name for name in reversed(there)}
        texts = self._texts(there, lower, field, source)
        label = self._label(there, lower, label_field, source, labels, texts)
        return Chosen(texts, label)

    def _texts(
        self, there: list[str], lower: Mapping[str, str], field: str, source: str
    ) -> tuple[str, ...]:
        if field:
            asked = [part.strip() for part in field.split(",")]
            return tuple(_existing(name, there, source, "text_field") for name in asked)
        for choice in self.texts:
            if all(name in lower for name in choice):
                return tuple(lower[name] for name in choice)
        usual = " or ".join("+".join(choice) for choice in self.texts)
        raise DataError(
            f"{source} has no text column of a usual name ({usual}); it has: {_listed(there)}. "
            "Name the column with text_field= (--text-field)"
        )

    def _label(
        self,
        there: list[str],
        lower: Mapping[str, str],
        label_field: str,
        source: str,
        needed: bool,
        texts: tuple[str, ...],
    ) -> str | None:
        if label_field:
            return _existing(label_field, there, source, "label_field")
        found = [lower[name] for name in self.labels if name in lower and lower[name] not in texts]
        if found:
            return found[0]
        if needed:
            raise DataError(
                f"{source} has no label column of a usual name ({' or '.join(self.labels)}); it "
                f"has: {_listed(there)}. Name the column with label_field= (--label-field)"
            )
        return None

    def _by_position(self, there: list[str], needed: bool, source: str) -> Chosen:
        count = len(there)
        if count not in self.by_position:
            counts = " or ".join(map(str, sorted(self.by_position)))
            raise DataError(
                f"the rows of {source} have {count} cells without names, and {counts} were "
                "expected; give rows with names, or choose by number with text_field= and "
                "label_field="
            )
        texts = self.by_position[count]
        if needed and texts == count:
            raise DataError(
                f"the rows of {source} hold no label, which is needed here; give the label after "
                "the text"
            )
        return Chosen(tuple(there[:texts]), there[texts] if texts < count else None)


@dataclass(frozen=True)
class Chosen:
    """The columns of one table.

    Args:
        texts: names of the text columns.
        label: name of the label column; None where there is none.
    """

    texts: tuple[str, ...]
    label: str | None


def is_header(cells: list[str], columns: Columns, field: str, label_field: str) -> bool:
    """Whether the first line of a file names its columns.

    Numbers that were asked for (`text_field="1"`) say it does not, names say it does. Without
    either, a line is data if its last cell is a number and none of its cells is a usual name.

    Args:
        cells: the first line.
        columns: the usual names.
        field: the text columns that were asked for.
        label_field: the label column that was asked for.
    """
    asked = [part.strip() for part in f"{field},{label_field}".split(",") if part.strip()]
    if asked:
        return not all(name.isdecimal() and name not in cells for name in asked)
    usual = {name for choice in columns.texts for name in choice} | set(columns.labels)
    if any(cell.strip().lower() in usual for cell in cells):
        return True
    return len(cells) not in columns.by_position or not _is_number(cells[-1])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _existing(name: str, there: list[str], source: str, argument: str) -> str:
    if name in there:
        return name
    close = difflib.get_close_matches(name, there, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    flag = "--" + argument.replace("_", "-")
    raise DataError(
        f"{source} has no column '{name}'{hint} It has: {_listed(there)}. Name one with "
        f"{argument}= ({flag})"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NUM_LISTED} more" if len(names) > _NUM_LISTED else ""
    return ", ".join(names[:_NUM_LISTED]) + more
