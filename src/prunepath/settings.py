"""Settings as a frozen dataclass that is checked when it is read from words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of something; subclasses add fields with `metadata={"help": ...}`.

    Example:
        >>> Settings.from_dict({"rounds": 3})
        Traceback (most recent call last):
        ...
        prunepath.errors.RequestError: this has no setting 'rounds'; it has none
    """

    owner: ClassVar[str] = "this"
    """Whose settings they are, as the subject of a sentence."""

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build from keyword settings.

        Raises:
            RequestError: a setting it does not have, or a value of another type.
        """
        known = {item.name for item in fields(cls)}
        for name in settings:
            if name not in known:
                raise RequestError(
                    f"{cls.owner} has no setting '{name}'; it has "
                    f"{', '.join(sorted(known)) or 'none'}"
                )
        for item in fields(cls):
            if item.name not in settings or item.default is MISSING:
                continue
            value, usual = settings[item.name], item.default
            if not isinstance(value, float | int if isinstance(usual, float) else type(usual)):
                raise RequestError(f"{item.name} is {value!r}; give a value like {usual!r}")
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)
