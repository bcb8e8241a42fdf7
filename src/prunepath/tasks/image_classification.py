"""Image classification: one class for every image.

Label-free, the distance is the divergence of the class distribution from the dense model's.

Shapes: B images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunepath.data.samples import Samples
from prunepath.tasks.draws import fisher_probe, require_finite
from prunepath.tasks.task import Counts, DataRequest, Metric, Task
from prunepath.tasks.vision import (
    each_batch,
    float_like,
    random_pixels,
    require_classes,
    require_labels,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.progress import Progress

__all__ = ["IMAGE_CLASSIFICATION", "ImageClassification"]

_TOP = 5


class ImageClassification(Task):
    """Choose one class for every image."""

    name = "image-classification"
    summary = "one class for every image; top-1 accuracy"
    auto_classes = ("AutoModelForImageClassification",)
    architectures = ("ForImageClassification", "ForImageClassificationWithTeacher")
    pools_patches = True
    distribution = True
    counts = Counts(windows=320, refit=256, holdout=64, moments=512, evaluation=None, batch=16)
    metric_name = "accuracy"

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        """Read images; see `data.images.image_samples`."""
        from prunepath.data.images import image_samples

        require_classes(opened.model)
        return image_samples(opened, data, request)

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        """Random images of the size the model was made for; `window` has no meaning here."""
        return Samples(
            inputs={"pixel_values": random_pixels(model, count, seed)},
            description="random images",
        )

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Class scores (B, C); of a DeiT with two heads their mean."""
        logits: Tensor = model(**float_like(model, inputs)).logits
        return logits

    def draw(
        self, output: Tensor, samples: Samples, objective: str, generator: torch.Generator
    ) -> Tensor:
        """A gradient of the summed loss at the class scores, (B, C).

        Label-free it is z = sum over classes c of e_c sqrt(p_c) (onehot_c - p) with random signs
        e_c: E[z z'] = sum_c p_c (onehot_c - p)(onehot_c - p)' = diag(p) - p p', the Gauss-Newton
        matrix of the divergence. A label drawn from p has the same mean, but a confident model
        draws its own answer almost every time and the gradient p - onehot vanishes; the rare other
        draws hold all the signal. In z every class speaks up every time, as loud as its root.

        Raises:
            NumericsError: the scores are not finite.
            RequestError: an unknown objective, or `"task"` without labels.
        """
        from prunepath.statistics.objective import require_objective, take_labels_

        require_objective(objective)
        if objective == "kl":
            return fisher_probe(output, generator)
        return take_labels_(output, require_labels(samples))

    def distance(self, output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
        """Mean KL(dense || own) per image, in nats."""
        from prunepath.statistics.objective import kl_to_dense

        return kl_to_dense(output, dense)

    def loss(self, output: Tensor, samples: Samples) -> Tensor:
        """Mean cross-entropy of the labels, in nats."""
        from torch.nn import functional

        labels = require_labels(samples).to(output.device)
        loss: Tensor = functional.cross_entropy(output.float(), labels)
        return loss

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """Top-1 accuracy in percent, and top-5 where there are more than 5 classes.

        Raises:
            NumericsError: the scores are not finite.
            RequestError: the samples have no labels.
        """
        require_labels(samples)
        right, near, classes = 0, 0, 0
        for batch, inputs in each_batch(model, samples, self.counts.batch, "accuracy", progress):
            logits = self.output(model, inputs)
            require_finite(logits)
            labels = require_labels(batch).to(logits.device).unsqueeze(-1)
            classes = logits.shape[-1]
            best = logits.topk(min(_TOP, classes)).indices
            right += int((best[:, :1] == labels).sum())
            near += int((best == labels).sum())
        others = {"top-5": 100 * near / len(samples)} if classes > _TOP else {}
        return Metric(
            name=self.metric_name,
            value=100 * right / len(samples),
            higher_is_better=self.higher_is_better,
            samples=len(samples),
            others=others,
        )


IMAGE_CLASSIFICATION = ImageClassification()
