"""Settings of layer-adaptive increments, checked when they are made."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from prunepath.errors import RequestError
from prunepath.methods.method import METHODS, Method, MethodConfig

__all__ = ["AdaptConfig", "base_method"]


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(MethodConfig):
    """Settings of `adapt`.

    Raises:
        RequestError: a value out of range, or a base that is none.
    """

    base: str = field(
        default="taylor:reduction=sum",
        metadata={"help": "method that scores units, with its settings: NAME:KEY=VALUE,KEY=VALUE"},
    )
    steps: int = field(
        default=50, metadata={"help": "steps from nothing to everything; each takes 1/steps"}
    )
    amplitude: float = field(
        default=0.02,
        metadata={"help": "how far a layer's part of a step may be from 1/steps (0: all alike)"},
    )
    cap: float = field(default=0.99, metadata={"help": "largest part of a layer that may leave"})
    rescoring: bool = field(
        default=True, metadata={"help": "score units and layers anew after every step"}
    )
    step_windows: int = field(
        default=0, metadata={"help": "calibration samples scored after a step; 0: all of them"}
    )
    until: float = field(
        default=1.0, metadata={"help": "removed part behind which nothing is scored anew"}
    )

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise RequestError(f"steps is {self.steps}; it must be at least 1")
        if not 0 <= self.amplitude < float("inf"):
            raise RequestError(f"amplitude is {self.amplitude}; it must be 0 or above")
        for name in ("cap", "until"):
            if not 0 < getattr(self, name) <= 1:
                raise RequestError(
                    f"{name} is {getattr(self, name)}; it is a part of a layer, so give a number "
                    "above 0 and up to 1"
                )
        if self.step_windows < 0:
            raise RequestError(
                f"step_windows is {self.step_windows}; give a number of samples, or 0 for all"
            )
        base_method(self.base)


def base_method(text: str) -> Method:
    """A method by its name and settings in one word.

    Args:
        text: `"fisher"`, or `"residual:repair=none,rounds=1"`.

    Raises:
        RequestError: an unknown method or setting, or a method that runs the model itself: it
            would do so in every step.

    Example:
        >>> base_method("taylor:reduction=sum").config.reduction
        'sum'
    """
    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise RequestError(
                f"base is '{text}', and '{part}' is not KEY=VALUE; write for example "
                "base=taylor:reduction=sum"
            )
        settings[key.strip()] = _scalar(value.strip())
    chosen = METHODS[name.strip()]
    try:
        method = chosen(chosen.Config.from_dict(settings))
    except RequestError as error:
        raise RequestError(f"base is '{text}': {error}") from None
    if method.cost_class() == "search":
        raise RequestError(
            f"base is '{text}', and that method runs the model itself; use one that scores units "
            "from the statistics of one pass, such as taylor, fisher, magnitude, gblm or residual"
        )
    return method


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
