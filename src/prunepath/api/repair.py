"""Refit a cut model at the strength that held-out samples ask for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.api.supplies import Supplies
    from prunepath.data.samples import Samples
    from prunepath.structure.selection import Selection
    from prunepath.structure.units import Structure
    from prunepath.surgery.stream import Stream
    from prunepath.tasks.task import Task

__all__ = [
    "REFITS",
    "HeldOut",
    "make_room_for_biases_",
    "most_biases",
    "repair_",
    "require_refit",
]

REFITS = ("sequential", "moments", "scales", "bias", "none")


def require_refit(refit: str, *, bias: bool) -> None:
    """Refuse a repair that does not exist.

    Raises:
        RequestError: an unknown word, or biases where nothing fits them.
    """
    if refit not in REFITS:
        raise RequestError(f"unknown refit '{refit}'; use one of {', '.join(REFITS)}")
    if bias and refit not in ("moments", "bias"):
        raise RequestError(f"biases are fitted from moments, and refit is '{refit}'; use 'moments'")


def most_biases(structure: Structure, *, kind: str, bias: bool) -> int:
    """Numbers that a refit may add to a model: a bias for every map that lost inputs.

    Args:
        structure: the dense model's structure. It does not say which maps have biases already, so
            for models that have them this is too many, by a few in ten thousand.
        kind, bias: see `repair_`.
    """
    from prunepath.statistics.repairs import moves_bias

    if not moves_bias(_repair_words(kind, bias)):
        return 0
    consumers = {group.consumer for group in structure.groups if group.consumer}
    return sum(
        max(axis.size for axis in tensor.axes if not axis.cuttable)
        for place in structure.places
        for tensor in place.tensors
        if tensor.name.removesuffix(".weight") in consumers
    )


def make_room_for_biases_(
    model: Any, structure: Structure, selection: Selection, *, kind: str, bias: bool
) -> int:
    """Give the maps whose biases a refit will move biases of zero, where they have none.

    Args:
        model: the cut model; changed.
        structure: the dense model's structure.
        selection: units kept.
        kind, bias: see `repair_`.

    Returns:
        Numbers that were added; `most_biases` at most.
    """
    from prunepath.statistics.repairs import moves_bias
    from prunepath.surgery.biases import give_biases_
    from prunepath.surgery.refit import cut_consumers

    if not moves_bias(_repair_words(kind, bias)):
        return 0
    cut = cut_consumers(structure, selection, emptied=True)
    return give_biases_(model, structure, selection, [consumer.name for consumer in cut])


def repair_(
    model: Any,
    dense: Any,
    structure: Structure,
    selection: Selection,
    task: Task,
    supplies: Supplies,
    *,
    kind: str,
    bias: bool = False,
) -> dict[str, Any]:
    """Repair the consumers of a cut model that lost inputs, and what those without any still say.

    Args:
        model: the cut model; its weights are changed.
        dense: the model it was cut from.
        structure: the dense model's structure.
        selection: units kept.
        task: what the model is used for.
        supplies: what lies beside the path.
        kind: `"sequential"`, `"moments"`, `"scales"` or `"bias"`.
        bias: let `"moments"` move biases, too; with either, every map that lost inputs must
            have one (`make_room_for_biases_`).

    Returns:
        What was done, name -> value.
    """
    from prunepath.statistics.repairs import moves_bias
    from prunepath.structure.matrices import weight_of
    from prunepath.surgery.refit import (
        cut_consumers,
        emptied_consumers,
        fill_constants_,
        refit_from_moments_,
    )
    from prunepath.surgery.scales import column_units, scale_from_moments_, scale_in_order_
    from prunepath.surgery.sequential import refit_sequentially_
    from prunepath.surgery.strength import choose_strength_

    repair = _repair_words(kind, bias)
    with_bias = moves_bias(repair)
    consumers = list(cut_consumers(structure, selection, emptied=with_bias))
    constant = [
        name
        for name in emptied_consumers(structure, selection)
        if not with_bias and model.get_submodule(name).bias is not None
    ]
    if not consumers and not constant:
        return {"kind": "none"}
    names = [consumer.name for consumer in consumers]
    weights = {name: weight_of(dense.get_submodule(name)) for name in (*names, *constant)}
    changed = [f"{name}.weight" for name in names] + [f"{name}.bias" for name in constant]
    before = {name: model.get_parameter(name).detach().clone() for name in changed}
    fill_constants_(model, weights, constant, supplies.statistics)
    if kind in ("moments", "bias") or supplies.refit is None:
        refit_from_moments_(model, weights, consumers, supplies.statistics, repair=repair)
    else:
        stream = _stream(model, structure, task, supplies)
        compared = [consumer for consumer in consumers if consumer.name in supplies.outputs]
        others = [consumer for consumer in consumers if consumer.name not in supplies.outputs]
        if kind == "scales":
            units = {each.name: column_units(structure, selection, each) for each in consumers}
            scale_from_moments_(model, weights, others, supplies.statistics, units)
            scale_in_order_(model, stream, weights, compared, units)
        else:
            refit_from_moments_(model, weights, others, supplies.statistics)
            refit_sequentially_(model, stream, weights, compared, supplies.statistics)
    if with_bias:  # a bias cannot be blended with none
        return {"kind": "bias" if kind == "bias" else "moments with bias"}
    held_out = HeldOut(task, dense, supplies.holdout)
    parts = [partial(held_out.losses, model, part) for part in held_out.parts]
    chosen = choose_strength_(model, before, parts)
    return {
        "kind": kind,
        "strength": chosen.strength,
        "held-out loss without": float(f"{chosen.without:.5g}"),
        "held-out loss with": float(f"{chosen.taken:.5g}"),
    }


def _stream(model: Any, structure: Structure, task: Task, supplies: Supplies) -> Stream:
    """The cut model on the samples whose dense outputs the search kept."""
    from prunepath.surgery.stream import Stream

    assert supplies.refit is not None
    inputs = supplies.refit.to(next(model.parameters()).device)
    masks = (inputs.get(name) for name in ("attention_mask", "decoder_attention_mask"))
    return Stream(
        outputs=supplies.outputs,
        run=lambda: task.body(model, inputs),
        skip_first=task.skip_first,
        masks=[mask for mask in masks if mask is not None],
        additive=structure.additive,
        names={
            group.consumer: structure.places_by_path[group.place].stack
            for group in structure.groups
        },
    )


def _repair_words(kind: str, bias: bool) -> str:
    """What a refit moves, in the words of `statistics.repairs`."""
    if kind in ("bias", "none"):
        return kind
    return "linear+bias" if bias else "linear"


def _halves(window: Samples) -> list[Samples]:
    """A window of text as two, or whole where half of it would be all beginning."""
    width = next(iter(window.inputs.values())).shape[1]
    if width < _SHORT:
        return [window]
    return [
        replace(
            window,
            inputs={name: value[:, part] for name, value in window.inputs.items()},
            labels=None,
            fingerprint=f"{window.fingerprint}[:,{part.start}:{part.stop}]",
        )
        for part in (slice(0, width // 2), slice(width // 2, width))
    ]


_SHORT = 256  # tokens


class HeldOut:
    """How far a model is off on held-out samples.

    Text is its own label, so language models are measured by their loss on it; every other task
    by its distance to the dense model's answers, which needs no labels.

    Args:
        task: what the models are used for.
        dense: the dense model.
        samples: held-out samples.
    """

    def __init__(self, task: Task, dense: Any, samples: Samples) -> None:
        self._task = task
        self._dense = dense
        self._samples = samples

    @property
    def parts(self) -> list[Samples]:
        """The samples in parts that are measured one after the other: halves of windows of text,
        of which the first often decides, or all."""
        if not self._by_token:
            return [self._samples]
        return [half for window in self._samples.batches(1) for half in _halves(window)]

    def losses(self, model: Any, part: Samples) -> Tensor:
        """Losses on one part, float64: one per token of text, else their mean alone."""
        return self._surprise(model, part) if self._by_token else self._distance(model, part)

    @property
    def _by_token(self) -> bool:
        return self._task.name == "causal-lm"

    def _surprise(self, model: Any, part: Samples) -> Tensor:
        from prunepath.evaluation.mode import device_of, evaluating
        from prunepath.evaluation.perplexity import window_losses

        with evaluating(model):
            losses, known = window_losses(model, part.to(device_of(model)))
        return losses[known].cpu()

    def _distance(self, model: Any, part: Samples) -> Tensor:
        import torch

        from prunepath.evaluation.mode import device_of, evaluating

        total, rows = 0.0, 0
        with evaluating(model, self._dense):
            for batch in part.batches(self._task.counts.batch):
                own = self._task.output(model, batch.to(device_of(model)))
                # Asked again each time: kept, the logits of all samples may not fit.
                dense = self._task.output(self._dense, batch.to(device_of(self._dense)))
                weight = batch.num_tokens if self._task.loss_rows == "token" else len(batch)
                total += weight * float(self._task.distance(own, dense.to(own.device), batch))
                rows += weight
        return torch.tensor([total / rows], dtype=torch.float64)
