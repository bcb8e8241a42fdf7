"""Which rows of an activation are real: padding is in no statistic."""

from __future__ import annotations

from torch import Tensor

from prunepath.data.samples import Samples

__all__ = ["padding_masks", "real_rows"]

_NAMES = ("attention_mask", "decoder_attention_mask")


def padding_masks(samples: Samples) -> tuple[Tensor, ...]:
    """The masks of a batch that mark any padding, (B, T) each, True where a position is real."""
    masks = (samples.inputs.get(name) for name in _NAMES)
    return tuple(mask.bool() for mask in masks if mask is not None and not mask.all())


def real_rows(rows: Tensor, masks: tuple[Tensor, ...]) -> Tensor:
    """Rows (N, n) of an activation that are no padding.

    Args:
        rows: (B, T, n), or (B T, n); an activation of another shape is taken whole.
        masks: of the batch it belongs to (`padding_masks`), told apart by their shapes.
    """
    flat = rows.detach().reshape(-1, rows.shape[-1])
    for mask in masks:
        if rows.shape[:-1] in (mask.shape, (mask.numel(),)):
            return flat[mask.reshape(-1).to(flat.device)]
    return flat
