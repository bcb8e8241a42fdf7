"""How fast language models run: tokens per second of reading a prompt and of writing after it.

Prefill is one forward pass over the prompt that computes the last logits only, as `generate` does;
decode is greedy steps of one token with the KV cache that the prompt left behind. Other work on a
machine makes single timings unreliable, so models to be compared take turns (A B C A B C ...) and
every number is a median: a slow moment then hits all of them alike and ratios hold.
"""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunepath.errors import RequestError
from prunepath.evaluation.mode import describe_device, device_of, evaluating
from prunepath.progress import Progress, track

__all__ = ["Speed", "compare_speed", "measure_speed"]


@dataclass(frozen=True)
class Speed:
    """Median speed of one model, and how it was measured.

    Args:
        prefill_tokens_per_second: tokens of prompt read per second, over the whole batch.
        decode_tokens_per_second: tokens written per second, over the whole batch.
        batch_size: sequences at once.
        sequence_length: tokens of the prompt.
        new_tokens: tokens written after it.
        repeats: timings behind each median.
        device: where it ran, with the number of threads on a CPU.
    """

    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    batch_size: int
    sequence_length: int
    new_tokens: int
    repeats: int
    device: str


def measure_speed(
    model: nn.Module,
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
    new_tokens: int = 32,
    repeats: int = 5,
    progress: Progress | None = None,
) -> Speed:
    """Measure one model. To compare models, use `compare_speed`, which times them in turns.

    Args:
        model: a causal language model of transformers.
        batch_size: sequences at once.
        sequence_length: tokens of the prompt.
        new_tokens: tokens to write after it.
        repeats: timings behind each median, after one warm-up that does not count.
        progress: told about every round.

    Returns:
        The median speeds.

    Raises:
        RequestError: a number is below 1, or prompt and new tokens exceed the model's context.
    """
    speeds = compare_speed(
        {"model": model},
        batch_size=batch_size,
        sequence_length=sequence_length,
        new_tokens=new_tokens,
        repeats=repeats,
        progress=progress,
    )
    return speeds["model"]


def compare_speed(
    models: Mapping[str, nn.Module],
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
    new_tokens: int = 32,
    repeats: int = 5,
    progress: Progress | None = None,
) -> dict[str, Speed]:
    """Measure several models in turns, so that their ratios hold on a busy machine.

    Args:
        models: name -> causal language model of transformers.
        batch_size: sequences at once.
        sequence_length: tokens of the prompt.
        new_tokens: tokens to write after it.
        repeats: rounds; in each, every model is timed once. One warm-up round does not count.
        progress: told about every round.

    Returns:
        Name -> median speeds, in the order of `models`.

    Raises:
        RequestError: a number is below 1, or prompt and new tokens exceed a model's context.
    """
    sizes = {
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "new_tokens": new_tokens,
        "repeats": repeats,
    }
    for name, size in sizes.items():
        if size < 1:
            raise RequestError(f"{name}={size} was asked for; use at least 1")
    prompts = {
        name: _prompt(name, model, batch_size, sequence_length, new_tokens)
        for name, model in models.items()
    }
    timings: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    with evaluating(*models.values()):
        for turn in track(progress, range(repeats + 1), "speed"):
            for name, model in models.items():
                seconds = _time_once(model, prompts[name], new_tokens)
                if turn > 0:
                    timings[name].append(seconds)
    return {
        name: Speed(
            batch_size * sequence_length / statistics.median(prefill for prefill, _ in taken),
            batch_size * new_tokens / statistics.median(decode for _, decode in taken),
            device=describe_device(device_of(models[name])),
            **sizes,
        )
        for name, taken in timings.items()
    }


def _prompt(
    name: str, model: nn.Module, batch_size: int, sequence_length: int, new_tokens: int
) -> Tensor:
    """Random token ids (batch, length), the same for every model of one vocabulary."""
    config: Any = model.config
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and sequence_length + new_tokens > longest:
        raise RequestError(
            f"sequence_length={sequence_length} and new_tokens={new_tokens} were asked for, but "
            f"the context of {name} is {longest} tokens; use a shorter sequence"
        )
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, sequence_length)
    ids = torch.randint(config.vocab_size, shape, generator=generator)
    return ids.to(device_of(model))


def _time_once(model: nn.Module, prompt: Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds of one prefill and of `new_tokens` decode steps after it."""
    last_only = (
        {"logits_to_keep": 1}
        if "logits_to_keep" in inspect.signature(model.forward).parameters
        else {}
    )
    start = _now(prompt.device)
    output = model(input_ids=prompt, use_cache=True, **last_only)
    token = output.logits[:, -1:].argmax(dim=-1)
    read = _now(prompt.device)
    for _ in range(new_tokens):
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
        token = output.logits[:, -1:].argmax(dim=-1)
    return read - start, _now(prompt.device) - read


def _now(device: torch.device) -> float:
    # A GPU returns from a call before the work is done.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
