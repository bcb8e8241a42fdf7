"""Semantic segmentation: a class for every pixel.

The answer is a distribution over classes for every pixel of the model's own, coarser, grid. Models
that answer with queries (MaskFormer, Mask2Former) give each query a class and a mask; a pixel's
score of a class is the sum over queries of class probability times mask probability, as in their
papers. Label-free, the distance is the divergence of those distributions from the dense model's.

Shapes: B images, C classes, h and w height and width of the grid, H and W those of the image, Q
queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunepath.data.samples import Samples
from prunepath.errors import ModelError
from prunepath.tasks.draws import fisher_probe, require_finite
from prunepath.tasks.overlap_score import Overlap
from prunepath.tasks.task import Counts, DataRequest, Metric, Task
from prunepath.tasks.vision import each_batch, float_like, random_pixels, require_labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.progress import Progress

__all__ = ["SEGMENTATION", "Segmentation"]

# Spread over the classes of every pixel that queries score: where no query claims a pixel, its
# scores are near zero and their ratios mean nothing.
_FLOOR = 0.01


class Segmentation(Task):
    """Choose a class for every pixel."""

    name = "segmentation"
    summary = "a class for every pixel; mean IoU"
    auto_classes = (
        "AutoModelForSemanticSegmentation",
        "AutoModelForUniversalSegmentation",
        "AutoModelForInstanceSegmentation",
    )
    architectures = (
        "ForSemanticSegmentation",
        "ForUniversalSegmentation",
        "ForInstanceSegmentation",
    )
    distribution = True
    counts = Counts(windows=64, refit=16, holdout=16, moments=32, evaluation=None, batch=2)
    metric_name = "mean IoU"

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        """Read images and masks; see `data.masks.mask_samples`."""
        from prunepath.data.masks import mask_samples

        return mask_samples(opened, data, request)

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        """Random images of the size the model was made for; `window` has no meaning here."""
        return Samples(
            inputs={"pixel_values": random_pixels(model, count, seed)},
            description="random images",
        )

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Class scores of every pixel, before the softmax, (B, h, w, C).

        Raises:
            ModelError: the model gives neither pixel scores nor queries.
        """
        scores, summed = _scores(model, inputs)
        if summed:
            scores = (scores + _FLOOR / scores.shape[1]).log()
        return scores.movedim(1, -1)

    def draw(
        self, output: Tensor, samples: Samples, objective: str, generator: torch.Generator
    ) -> Tensor:
        """A gradient of the summed loss at the class scores, (B, h, w, C).

        The loss of an image is the mean over its pixels; label-free, every pixel is probed with
        signs of its own (see `tasks.draws.fisher_probe`).

        Raises:
            NumericsError: the scores are not finite.
            RequestError: an unknown objective, or `"task"` without masks.
        """
        import torch

        from prunepath.statistics.objective import require_objective

        require_objective(objective)
        if objective == "task":
            with torch.enable_grad():
                leaf = output.detach().requires_grad_()
                total = self.loss(leaf, samples) * len(output)
            return torch.autograd.grad(total, leaf)[0]
        keep = _counting(samples, output)
        pixels = keep.flatten(1).sum(1).clamp(min=1).view(-1, 1, 1, 1)
        return fisher_probe(output, generator, keep) / pixels.sqrt().to(output.dtype)

    def counted(self, output: Tensor, samples: Samples) -> Tensor | None:
        return _counting(samples, output)

    def distance(self, output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
        """Mean over images of the mean KL(dense || own) per pixel, in nats."""
        import torch

        from prunepath.statistics.objective import kl_to_dense

        keep = _counting(samples, output)
        return torch.stack(
            [
                kl_to_dense(own, then, where)
                for own, then, where in zip(output, dense, keep, strict=True)
            ]
        ).mean()

    def loss(self, output: Tensor, samples: Samples) -> Tensor:
        """Mean over images of the mean cross-entropy per pixel at the masks' size, in nats."""
        from torch.nn import functional

        from prunepath.data.pixels import IGNORED

        labels = require_labels(samples).to(output.device)
        logits = _resized(output.movedim(-1, 1).float(), labels.shape[-2:])
        losses = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        pixels = (labels != IGNORED).flatten(1).sum(1).clamp(min=1)
        return (losses.flatten(1).sum(1) / pixels).mean()

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """Mean intersection over union, in percent, at the size the model sees.

        Counts are summed over all images first; the mean is over classes that occur in masks or
        predictions. Others: pixel accuracy, and mean accuracy over classes that occur in masks.

        Raises:
            NumericsError: the scores are not finite.
            RequestError: the samples have no masks.
            DataError: no pixel of the masks has a class.
        """
        require_labels(samples)
        overlap = Overlap()
        for batch, inputs in each_batch(model, samples, self.counts.batch, "mean IoU", progress):
            scores, _ = _scores(model, inputs)
            require_finite(scores.movedim(1, -1))
            labels = require_labels(batch).to(scores.device)
            overlap.add(_resized(scores.float(), labels.shape[-2:]).argmax(1), labels)
        return Metric(
            name=self.metric_name,
            value=overlap.mean_iou(samples.description),
            higher_is_better=self.higher_is_better,
            samples=len(samples),
            others={
                "pixel accuracy": overlap.pixel_accuracy(),
                "mean accuracy": overlap.mean_accuracy(),
            },
        )


def _scores(model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, bool]:
    """Scores (B, C, h, w), and whether they are sums of probabilities over queries."""
    import torch

    found = model(**float_like(model, inputs))
    if "class_queries_logits" in found and "masks_queries_logits" in found:
        # The last class means that the query has found nothing.
        classes = found["class_queries_logits"].softmax(-1)[..., :-1]
        masks = found["masks_queries_logits"].sigmoid()
        return torch.einsum("bqc,bqhw->bchw", classes, masks), True
    if "logits" not in found or found["logits"].ndim != 4:
        raise ModelError(
            f"'{type(model).__name__}' gives {', '.join(found)}, and neither scores of pixels nor "
            "queries with masks; use a model such as SegFormer, MaskFormer or Mask2Former"
        )
    return found["logits"], False


def _resized(scores: Tensor, size: Any) -> Tensor:
    from torch.nn import functional

    return functional.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)


def _counting(samples: Samples, output: Tensor) -> Tensor:
    """Pixels of the model's grid that are no padding, bool (B, h, w)."""
    import torch
    from torch.nn import functional

    mask = samples.inputs.get("pixel_mask")
    if mask is None:
        return torch.ones(output.shape[:-1], dtype=torch.bool, device=output.device)
    mask = mask.to(output.device).unsqueeze(1).float()
    return functional.interpolate(mask, size=tuple(output.shape[1:3])).squeeze(1).bool()


SEGMENTATION = Segmentation()
