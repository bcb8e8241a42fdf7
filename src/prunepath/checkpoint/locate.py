"""Find a saved model and read its config, before anything heavy is loaded."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.checkpoint.companions import HUB_OPTIONS
from prunepath.errors import ModelError, PrunepathError
from prunepath.tasks import TASKS
from prunepath.tasks.infer import infer_task

if TYPE_CHECKING:
    from prunepath.tasks.task import Task

__all__ = ["Located", "locate", "task_of", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Located:
    """A saved model that was found and is not loaded yet.

    Args:
        source: what the user called it.
        where: what `from_pretrained` wants to hear.
        options: what else it wants to hear.
        config: its config; None for a GGUF file.
    """

    source: str
    where: str
    options: dict[str, Any]
    config: Any


def locate(source: str | Path, **options: Any) -> Located:
    """Find a saved model and read its config.

    Args:
        source: Hub id, folder or `.gguf` file.
        options: of `from_pretrained`.

    Raises:
        ModelError: there is none, or its config cannot be read.
    """
    where, more = _where(source)
    if "gguf_file" in more:
        return Located(source=str(source), where=where, options={**options, **more}, config=None)
    from transformers import AutoConfig

    from prunepath.checkpoint.auto import register_auto_classes

    register_auto_classes()
    hub = {name: value for name, value in options.items() if name in HUB_OPTIONS}
    trust = {name: value for name, value in options.items() if name == "trust_remote_code"}
    rest = {name: value for name, value in options.items() if name not in {*hub, *trust}}
    try:
        config, unused = AutoConfig.from_pretrained(
            where, return_unused_kwargs=True, **hub, **trust, **rest
        )
    except PrunepathError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise unreadable(source, error) from None
    return Located(
        source=str(source), where=where, options={**hub, **trust, **unused}, config=config
    )


def task_of(located: Located, asked: str | None) -> Task:
    """What the model is for.

    Raises:
        RequestError: there is no task of the asked name.
        ModelError: it cannot be told, or is not what was asked for.
    """
    if located.config is not None:
        return infer_task(located.config, asked)
    task = TASKS[asked or "causal-lm"]
    if task.name != "causal-lm":
        raise ModelError(
            f"'{located.source}' is a GGUF file, which is read as a 'causal-lm' model, and the "
            f"task '{asked}' was asked for; leave the task out, or pass a folder"
        )
    return task


def unreadable(source: str | Path, error: Exception) -> ModelError:
    """What to tell the user when transformers cannot read a model."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(
        f"cannot load '{source}': {reason} Check the name, or pass a folder with config.json and "
        "safetensors, or a GGUF file"
    )


def _where(source: str | Path) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` wants to hear."""
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"there is no GGUF file '{source}'{_nearest(path)}")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            ggufs = sorted(item.name for item in path.glob("*.gguf"))
            hint = f"; it holds {ggufs[0]}, pass that file" if ggufs else ""
            raise ModelError(
                f"the folder '{source}' has no config.json, so it is not a saved model{hint}"
            )
        return str(path), {}
    text = str(source)
    if path.exists() or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise ModelError(f"there is no model folder '{source}'{_nearest(path)}")
    return text, {}


def _nearest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; the folder '{folder}' does not exist either"
    close = difflib.get_close_matches(path.name, [item.name for item in folder.iterdir()], n=1)
    return f"; did you mean '{folder / close[0]}'?" if close else f" in '{folder}'; check the name"
