"""What lies beside a model: its tokenizer, its feature extractor, its image settings.

Each is there or it is not; nothing is made up. Transformers builds an empty tokenizer for a folder
that has none, which would turn every text into unknown tokens, so that one counts as absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["HUB_OPTIONS", "Companions", "given_companions", "read_companions"]

HUB_OPTIONS = frozenset(
    ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
)
"""Options of loading that say where files are found."""

_AUDIO = ("input_features", "input_values")  # names of a speech model's main input
_FINDING = HUB_OPTIONS | {"gguf_file", "trust_remote_code"}
_IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, kw_only=True)
class Companions:
    """What prepares a model's inputs.

    Args:
        tokenizer: turns text into ids; None where there is none.
        processor: feature extractor that turns sound into frames; None for all other models.
        image_settings: what `preprocessor_config.json` says about images; None where it is not.
    """

    tokenizer: PreTrainedTokenizerBase | None = None
    processor: Any = None
    image_settings: dict[str, Any] | None = None


def read_companions(where: str, model: Any, *, tokenizer: Any = None, **options: Any) -> Companions:
    """Find what lies beside a model.

    Args:
        where: folder or Hub id of the model.
        model: the model, which says whether it listens.
        tokenizer: what the user gave (see `given_companions`), which goes before what lies there;
            None takes what lies there; False opens no tokenizer.
        options: of loading; those that find files are used.

    Raises:
        ModelError: nothing is where the user said it was.
    """
    beside = _all_at(where, model, options, text=tokenizer is None)
    given = given_companions(tokenizer, model, **options)
    return Companions(
        tokenizer=given.tokenizer if given.tokenizer is not None else beside.tokenizer,
        processor=given.processor if given.processor is not None else beside.processor,
        image_settings=given.image_settings or beside.image_settings,
    )


def given_companions(given: Any, model: Any, **options: Any) -> Companions:
    """What the user passed in place of what lies beside the model.

    Args:
        given: a tokenizer, a processor, an image processor or a feature extractor; a folder or Hub
            id that holds one; None or False for nothing.
        model: the model they are for.
        options: of loading; those that find files are used.

    Raises:
        ModelError: a folder or Hub id without any of them.
    """
    if given is None or given is False:
        return Companions()
    if isinstance(given, str | Path):
        # Neither the model's file nor its revision lies there.
        elsewhere = {k: v for k, v in options.items() if k not in {"gguf_file", "revision"}}
        found = _all_at(str(given), model, elsewhere)
        if found == Companions():
            raise ModelError(
                f"there is no tokenizer at '{given}'; pass a folder or Hub id that has one"
            )
        return found
    text, sound, image = (
        getattr(given, part, None) for part in ("tokenizer", "feature_extractor", "image_processor")
    )
    if text is None and sound is None and image is None:  # no processor, but one part of it
        if hasattr(given, "sampling_rate"):
            sound = given
        elif hasattr(given, "image_mean"):
            image = given
        else:
            text = given
    settings = None if image is None else json.loads(image.to_json_string())
    return Companions(tokenizer=text, processor=sound, image_settings=settings)


def _all_at(where: str, model: Any, options: Mapping[str, Any], *, text: bool = True) -> Companions:
    finding = {name: value for name, value in options.items() if name in _FINDING}
    return Companions(
        tokenizer=_tokenizer(where, finding) if text else None,
        processor=_processor(where, model, finding),
        image_settings=_image_settings(where, model, finding),
    )


def _tokenizer(where: str, options: Mapping[str, Any]) -> PreTrainedTokenizerBase | None:
    from transformers import AutoTokenizer

    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError, KeyError):
        return None  # a model without a tokenizer is fine until text is needed
    added = {str(token) for token in found.added_tokens_decoder.values()}
    words = set(found.get_vocab()) - added - set(found.all_special_tokens)
    return found if len(words) > 1 else None


def _processor(where: str, model: Any, options: Mapping[str, Any]) -> Any:
    if _listens(model) and "gguf_file" not in options:
        from transformers import AutoFeatureExtractor

        try:
            return AutoFeatureExtractor.from_pretrained(where, **options)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, KeyError):
            return None
    return None


def _image_settings(where: str, model: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of `preprocessor_config.json`, or of the image part of a newer `processor_config.json`."""
    if _listens(model) or "gguf_file" in options:
        return None
    plain, nested = (_read_json(where, name, options) for name in _IMAGE_FILES)
    if plain is not None:
        return plain
    inner = (nested or {}).get("image_processor")
    return dict(inner) if isinstance(inner, dict) else None


def _listens(model: Any) -> bool:
    return getattr(model, "main_input_name", "") in _AUDIO


def _read_json(where: str, name: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    from transformers.utils.hub import cached_file

    hub = {key: value for key, value in options.items() if key in HUB_OPTIONS}
    try:
        file = cached_file(where, name, _raise_exceptions_for_missing_entries=False, **hub)
    except OSError:  # no such place
        return None
    if file is None:
        return None
    try:
        read: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError:
        raise ModelError(
            f"'{name}' of '{where}' is not JSON; repair it, or download the model again"
        ) from None
    return read
