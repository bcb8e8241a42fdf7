"""The steps between recordings and a model of speech: spectrograms, transcripts, words.

Shapes: B recordings, M mel channels, F frames, T positions of the decoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunepath.data.samples import Samples
from prunepath.errors import DataError
from prunepath.progress import Progress, track

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.data.audio import Recordings
    from prunepath.tasks.task import Task

__all__ = [
    "Heard",
    "extractor_of",
    "hear",
    "longest_answer",
    "plain_words",
    "spectrograms",
    "transcribed",
    "typed",
]

# Of Whisper, the model nearly everyone means; others have no such limit in their config.
_MOST_TOKENS = 448


@dataclass(frozen=True, eq=False, kw_only=True)
class Heard(Samples):
    """Spectrograms, with what turns a model's answer back into text.

    Args:
        tokenizer: of the model that was opened.
    """

    tokenizer: Any


def extractor_of(opened: Any) -> Any:
    """The feature extractor of an opened model, which makes spectrograms.

    Raises:
        DataError: it has none.
    """
    found = getattr(opened.processor, "feature_extractor", opened.processor)
    if found is None or not hasattr(found, "sampling_rate"):
        raise DataError(
            f"'{opened.model_id}' has no feature extractor beside it, and recordings were given; "
            "put its preprocessor_config.json there"
        )
    return found


def spectrograms(extractor: Any, found: Recordings) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Log-mel spectrograms of recordings.

    Args:
        extractor: a feature extractor of transformers.
        found: recordings at its rate.

    Returns:
        The input of the encoder, (B, M, F), under its name; and remarks.
    """
    import torch

    sounds = [item.sound for item in found.items]
    name = extractor.model_input_names[0]
    made = extractor(sounds, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    most = getattr(extractor, "n_samples", None)
    over = 0 if most is None else sum(len(sound) > most for sound in sounds)
    note = f"{over} of {len(sounds)} recordings are longer than the model hears and were cut"
    return {name: made[name].to(torch.float32)}, (note,) if over else ()


def transcribed(opened: Any, texts: tuple[str, ...]) -> Tensor:
    """Transcripts as labels, (B, T), without the token the decoder begins with."""
    from prunepath.tasks.decoding import label_rectangle, start_token
    from prunepath.tasks.language import require_tokenizer

    tokenizer = require_tokenizer(opened)
    start, most = start_token(opened.model), longest_answer(opened.model)
    rows: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
    rows = [row[1:] if row[:1] == [start] else row for row in rows]
    return label_rectangle([row[:most] for row in rows])


def longest_answer(model: Any) -> int:
    """Positions the decoder has."""
    return int(getattr(model.config, "max_target_positions", None) or _MOST_TOKENS)


def typed(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs with numbers in the model's own float type, as its first layer wants them."""
    kind = next(model.parameters()).dtype
    return {
        name: value.to(kind) if value.is_floating_point() else value
        for name, value in inputs.items()
    }


def hear(task: Task, model: Any, samples: Heard, progress: Progress | None = None) -> Iterator[str]:
    """What a model writes down of each recording, by greedy decoding.

    Args:
        task: whose batch size is taken.
        model: the model.
        samples: recordings.
        progress: told about every batch.
    """
    from prunepath.evaluation.mode import device_of, evaluating

    device = device_of(model)
    size = task.counts.batch
    starts = range(0, len(samples), size)
    sounds = {
        name: value for name, value in samples.inputs.items() if not name.startswith("decoder_")
    }
    with evaluating(model):
        for start in track(progress, starts, task.metric_name, len(starts)):
            batch = {name: value[start : start + size] for name, value in sounds.items()}
            ids = model.generate(
                **typed(model, {name: value.to(device) for name, value in batch.items()}),
                # Half of the positions, which is where Whisper's own decoding stops, too.
                max_new_tokens=longest_answer(model) // 2,
                do_sample=False,
                num_beams=1,
            )
            yield from samples.tokenizer.batch_decode(ids, skip_special_tokens=True)


def plain_words(text: str) -> str:
    """A text without case and punctuation, words separated by one space.

    Example:
        >>> plain_words("It's a -- Path!")
        "it's a path"
    """
    return " ".join(re.sub(r"[^\w\s']", " ", text.casefold()).split())
