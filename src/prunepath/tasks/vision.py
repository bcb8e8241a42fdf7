"""What tasks on images share: random images of a model's shape, and runs over samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prunepath.data.pixels import vision_config
from prunepath.errors import ModelError, RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.data.samples import Samples
    from prunepath.progress import Progress

__all__ = ["each_batch", "float_like", "random_pixels", "require_classes", "require_labels"]

_SIDE = 224


def random_pixels(model: Any, count: int, seed: int) -> Tensor:
    """Random pixel values in the shape a model was made for.

    Args:
        model: a model of transformers.
        count: images B.
        seed: of the draw.

    Returns:
        (B, C, H, W), float32; 224 pixels a side where the config names no size, as models that
        take any size do.
    """
    import torch

    config = vision_config(model.config)
    size = getattr(config, "image_size", None) or _SIDE
    height, width = size if isinstance(size, list | tuple) else (size, size)
    generator = torch.Generator().manual_seed(seed)
    channels = getattr(config, "num_channels", 3)
    return torch.randn(count, channels, height, width, generator=generator)


def each_batch(
    model: Any, samples: Samples, size: int, label: str, progress: Progress | None
) -> Iterator[tuple[Samples, dict[str, Tensor]]]:
    """Batches of samples and their inputs on the model's device, without gradients."""
    from prunepath.evaluation.mode import device_of, evaluating
    from prunepath.progress import track

    device = device_of(model)
    with evaluating(model):
        batches = track(progress, samples.batches(size), label, -(-len(samples) // size))
        for batch in batches:
            yield batch, batch.to(device)


def float_like(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs with their fractions in the type of the model's weights (bfloat16 models)."""
    dtype = next(model.parameters()).dtype
    return {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in inputs.items()
    }


def require_labels(samples: Samples) -> Tensor:
    """The labels of samples.

    Raises:
        RequestError: they have none.
    """
    if samples.labels is None:
        raise RequestError(
            f"labels are needed, but {samples.description or 'the samples'} have none; use data "
            "with labels, or the label-free objective 'kl'"
        )
    return samples.labels


def require_classes(model: Any) -> None:
    """Refuse a head that does not choose one class of several.

    Raises:
        ModelError: it has fewer than two classes, or any number of them at once.
    """
    classes = int(getattr(model.config, "num_labels", 0) or 0)
    if classes < 2:
        raise ModelError(
            f"image classification needs a head with at least 2 classes, and the model has "
            f"{classes}; load a model with a trained classifier"
        )
    if getattr(model.config, "problem_type", None) == "multi_label_classification":
        raise ModelError(
            "the model gives an image any number of classes (multi_label_classification), which "
            "top-1 accuracy does not measure; use a model of one class per image"
        )
