"""What tasks with an encoder and a decoder share: what the decoder reads and what it should say.

At every position the decoder reads the tokens before and names the next one, so its inputs are the
labels shifted by one behind a start token. `decoder_attention_mask` marks the positions that have a
label; every other position is padding and counts nowhere.

Shapes: N rows, B rows of a batch, T positions of the decoder, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prunepath.errors import ModelError, RequestError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.data.samples import Samples

__all__ = [
    "NO_LABEL",
    "counting",
    "decoder_inputs",
    "draw_tokens",
    "label_rectangle",
    "needed_labels",
    "own_answers",
    "random_decoder_inputs",
    "token_distance",
    "token_loss",
]

NO_LABEL = -100
"""Label of padding."""


def label_rectangle(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of token ids, padded with `NO_LABEL` to the longest, (N, T)."""
    import torch

    labels = torch.full((len(rows), max(map(len, rows))), NO_LABEL, dtype=torch.int64)
    for index, row in enumerate(rows):
        labels[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return labels


def decoder_inputs(model: Any, labels: Tensor) -> dict[str, Tensor]:
    """What the decoder reads so as to name these labels.

    Args:
        model: a model of transformers with a decoder.
        labels: token ids, `NO_LABEL` behind the end, (N, T).

    Returns:
        `decoder_input_ids` and `decoder_attention_mask`, (N, T).

    Raises:
        ModelError: its config has no start token.
    """
    mask = labels != NO_LABEL
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        ids = model.prepare_decoder_input_ids_from_labels(labels=labels)
    else:
        ids = labels.roll(1, dims=1)
        ids[:, 0] = start_token(model)
    # Behind the end any token will do that the vocabulary has.
    ids = ids.masked_fill(~mask, max(getattr(model.config, "pad_token_id", 0) or 0, 0))
    return {"decoder_input_ids": ids, "decoder_attention_mask": mask.long()}


def start_token(model: Any) -> int:
    """The token a decoder begins with.

    Raises:
        ModelError: its config has none.
    """
    start = getattr(model.config, "decoder_start_token_id", None)
    if not isinstance(start, int):
        raise ModelError(
            f"the config of this {type(model).__name__} has no decoder_start_token_id, so nobody "
            "knows what its decoder begins with; set it"
        )
    return start


def own_answers(model: Any, inputs: Mapping[str, Tensor], *, limit: int, batch: int) -> Tensor:
    """What the model itself says to its inputs: the likeliest token at every step.

    Args:
        model: a model of transformers with an encoder and a decoder.
        inputs: of the encoder, (N, ...).
        limit: tokens of an answer at most.
        batch: rows at once.

    Returns:
        Labels (N, T), each row up to and with its end token.
    """
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    from prunepath.evaluation.mode import device_of, evaluating

    device, end = device_of(model), getattr(model.config, "eos_token_id", None)
    ends = set(end if isinstance(end, list) else [end])
    rows: list[list[int]] = []
    with evaluating(model):
        for start in range(0, len(next(iter(inputs.values()))), batch):
            part = {name: value[start : start + batch].to(device) for name, value in inputs.items()}
            token = torch.full((len(next(iter(part.values()))), 1), start_token(model))
            said: list[Tensor] = []
            seen: dict[str, Any] = dict(part)
            for _ in range(limit):
                found = model(**seen, decoder_input_ids=token.to(device), use_cache=True)
                token = found.logits[:, -1:].argmax(-1).cpu()
                said.append(token)
                if all(not ends.isdisjoint(row) for row in torch.cat(said, 1).tolist()):
                    break
                seen = {
                    "encoder_outputs": BaseModelOutput(found.encoder_last_hidden_state),
                    "past_key_values": found.past_key_values,
                }
                if "attention_mask" in part:
                    seen["attention_mask"] = part["attention_mask"]
            rows += [_until(row, ends) for row in torch.cat(said, 1).tolist()]
    return label_rectangle(rows)


def random_decoder_inputs(model: Any, count: int, width: int, seed: int) -> dict[str, Tensor]:
    """Random tokens behind the start token, without padding, (B, T)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(int(model.config.vocab_size), (count, width), generator=generator)
    ids[:, 0] = start_token(model)
    return {"decoder_input_ids": ids, "decoder_attention_mask": torch.ones_like(ids)}


def draw_tokens(
    output: Tensor, samples: Samples, objective: str, generator: torch.Generator
) -> Tensor:
    """`Task.draw` over the decoder's logits, (B, T, V)."""
    from prunepath.statistics.objective import draw_labels_, require_objective, take_labels_

    require_objective(objective)
    keep = counting(samples)
    if objective == "kl":
        return draw_labels_(output, generator, keep)
    return take_labels_(output, needed_labels(samples).clamp(min=0), keep)


def token_distance(output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
    """`Task.distance` over the decoder's logits, (B, T, V)."""
    from prunepath.statistics.objective import kl_to_dense

    return kl_to_dense(output, dense, counting(samples))


def token_loss(output: Tensor, samples: Samples) -> Tensor:
    """`Task.loss` over the decoder's logits, (B, T, V)."""
    from torch.nn import functional

    labels = needed_labels(samples).to(output.device)
    return functional.cross_entropy(
        output.flatten(0, 1).float(), labels.flatten(), ignore_index=NO_LABEL
    )


def needed_labels(samples: Samples) -> Tensor:
    """The labels of samples, (N, T).

    Raises:
        RequestError: they were read without.
    """
    if samples.labels is None:
        raise RequestError(
            "the texts to be said are needed, but these samples were read without labels; read "
            "them with labels, or use the objective 'kl', which needs none"
        )
    return samples.labels


def counting(samples: Samples) -> Tensor:
    """Positions of the answer that are no padding, bool (B, T)."""
    return samples.inputs["decoder_attention_mask"].bool()


def _until(row: list[int], ends: set[Any]) -> list[int]:
    for index, token in enumerate(row):
        if token in ends:
            return row[: index + 1]
    return row
