"""A recipe: a method with its settings, and how its paper cuts and repairs. Data, no algorithm.

What a recipe leaves open is the library's usual. Words are checked where they are used
(`api/recipes.py`), so a recipe may name a method of another package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from prunepath.errors import RequestError
from prunepath.registry import did_you_mean

__all__ = ["Recipe"]

_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "method": (str,),
    "summary": (str,),
    "paper": (str,),
    "config": (dict,),
    "layout": (str,),
    "kinds": (list, tuple),
    "multiple": (int,),
    "floor": (int, str),
    "rule": (str,),
    "rule_set": (dict,),
    "rearrange": (str, bool),
    "refit": (str,),
    "bias": (bool,),
}


_OPEN = ("multiple", "floor", "rearrange", "bias")  # None leaves them open


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published method, or one of your own, as data.

    Args:
        name: what it is called on the command line.
        method: registered search method.
        summary: one line.
        paper: short citation with its arXiv number; empty where there is none.
        config: settings of the method that differ from its defaults.
        layout: `"per-layer"` or `"uniform"`; empty: the usual.
        kinds: unit kinds that are cut; empty: what the layout cuts best.
        multiple: widths end as multiples of this; None: the usual.
        floor: smallest width any group keeps, or a part of it (`"10%"`); None: the usual.
        rule: how units are chosen under a budget; empty: the usual.
        rule_set: settings of the rule that differ from its defaults.
        rearrange: how units of a group are exchanged afterwards, `"kwon"` (or True), `"swaps"` or
            `"none"` (or False); None: the usual.
        refit: the repair after a cut, `"none"` where the paper has none; empty: the usual.
        bias: whether the repair moves biases; None: the usual.

    Raises:
        RequestError: a field of the wrong type, or an empty name.

    Example:
        >>> recipe = Recipe(name="bare-fisher", method="fisher", refit="none")
        >>> print(recipe.to_yaml())
        name: bare-fisher
        method: fisher
        refit: none
        >>> Recipe.from_yaml(recipe.to_yaml()) == recipe
        True
    """

    name: str
    method: str
    summary: str = ""
    paper: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    layout: str = ""
    kinds: tuple[str, ...] = ()
    multiple: int | None = None
    floor: int | str | None = None
    rule: str = ""
    rule_set: Mapping[str, Any] = field(default_factory=dict)
    rearrange: bool | str | None = None
    refit: str = ""
    bias: bool | None = None

    def __post_init__(self) -> None:
        for name, allowed in _TYPES.items():
            value = getattr(self, name)
            fine = isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))
            if not fine and not (value is None and name in _OPEN):
                raise RequestError(
                    f"the field '{name}' of a recipe is {value!r}; give a {allowed[0].__name__}"
                )
        if not self.name or not self.method:
            raise RequestError("a recipe needs a name and a method; see `prunepath methods spp`")
        if not re.fullmatch(r"\w[\w.+-]*", self.name):  # it names folders, too
            raise RequestError(
                f"a recipe is called '{self.name}'; use letters, digits and any of . + - _"
            )
        object.__setattr__(self, "kinds", tuple(self.kinds))
        object.__setattr__(self, "config", dict(self.config))
        object.__setattr__(self, "rule_set", dict(self.rule_set))

    @property
    def extraction(self) -> dict[str, Any]:
        """What it says about extractions: option -> value, without those it leaves open."""
        found = {name: getattr(self, name) for name in EXTRACTION}
        return {name: value for name, value in found.items() if value not in (None, "", (), {})}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without the fields that are left open."""
        found = {**asdict(self), "kinds": list(self.kinds)}
        return {name: value for name, value in found.items() if value not in (None, "", [], {})}

    @classmethod
    def from_dict(cls, values: Any, *, source: str = "the recipe") -> Recipe:
        """Read `to_dict` back.

        Args:
            values: a mapping of fields.
            source: where they come from, for messages.

        Raises:
            RequestError: a field that recipes do not have, or a value of the wrong type.
        """
        if not isinstance(values, Mapping):
            raise RequestError(
                f"{source} holds a {type(values).__name__}; a recipe is a mapping with the keys "
                "name and method"
            )
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise RequestError(
                    f"{source} has the unknown key '{name}'"
                    f"{did_you_mean(str(name), known)} Known: {', '.join(known)}"
                )
        for name in ("name", "method"):
            if name not in values:
                raise RequestError(f"{source} has no '{name}'; a recipe needs a name and a method")
        return cls(**values)

    def to_yaml(self) -> str:
        """The recipe as YAML, one field a line, without a newline at the end."""
        import yaml

        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, width=100)).rstrip()

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "the recipe") -> Recipe:
        """Read YAML, or JSON, which is YAML, too.

        Raises:
            RequestError: it is no YAML or no recipe.
        """
        import yaml

        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise RequestError(f"{source} is not YAML ({reason}); mend it") from None
        return cls.from_dict(values, source=source)

    @classmethod
    def load(cls, file: str | Path) -> Recipe:
        """Read a `.yaml` or `.json` file.

        Raises:
            RequestError: there is no such file, or it holds no recipe.
        """
        path = Path(file)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            raise RequestError(f"there is no recipe file {path}; give a .yaml file") from None
        except UnicodeDecodeError:
            raise RequestError(f"the recipe file {path} is not text; give a .yaml file") from None
        return cls.from_yaml(text, source=f"the recipe file {path}")

    def save(self, file: str | Path) -> None:
        """Write a `.yaml` or `.json` file, whole or not at all.

        Raises:
            DiskError: it cannot be written.
        """
        from prunepath.files import atomic_write

        path = Path(file)
        text = json.dumps(self.to_dict(), indent=2) if path.suffix == ".json" else self.to_yaml()
        with atomic_write(path) as beside:
            beside.write_text(text + "\n", encoding="utf-8")


EXTRACTION = (
    *("layout", "kinds", "multiple", "floor", "rule", "rule_set", "rearrange", "refit", "bias"),
)
"""Fields that say how to cut and repair; the words of `extract`."""
