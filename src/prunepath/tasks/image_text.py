"""Image-text retrieval: which caption belongs to which image.

The answer of a batch is its matrix of similarities, times the scale the model was trained with.
Most models were trained to choose: a row is a distribution over captions, a column one over images.
Models with a `logit_bias` were trained to judge every pair by itself; their answer gets a third
axis of two, the scores of "no" and "yes". Label-free, the distance is the divergence of those
distributions from the dense model's.

Shapes: B pairs of a batch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunepath.data.samples import Samples
from prunepath.errors import ModelError
from prunepath.tasks.draws import fisher_probe, require_finite
from prunepath.tasks.task import Counts, DataRequest, Metric, Task
from prunepath.tasks.vision import each_batch, float_like, random_pixels, require_labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.progress import Progress

__all__ = ["IMAGE_TEXT", "ImageText"]


class ImageText(Task):
    """Match images and captions."""

    name = "image-text"
    summary = "which caption belongs to which image; recall of retrieval"
    auto_classes = ("AutoModel", "AutoModelForZeroShotImageClassification")
    architectures = (
        "CLIPModel",
        "MetaClip2Model",
        "SiglipModel",
        "BlipModel",
        "ForImageTextRetrieval",
    )
    pools_patches = True
    counts = Counts(windows=256, refit=64, holdout=64, moments=64, evaluation=None, batch=16)
    metric_name = "image-to-text R@1"

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        """Read pairs; see `data.pairs.pair_samples`."""
        from prunepath.data.pairs import pair_samples

        return pair_samples(opened, data, request, full_width=_judges(opened.model))

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        """Random images and random captions of `window` tokens, ended by the end token.

        A window beyond what the model reads is shortened to that.
        """
        from prunepath.tasks.language import random_ids

        text = model.config.get_text_config()
        longest = getattr(text, "max_position_embeddings", None)
        if window is not None and isinstance(longest, int):
            window = min(window, longest)
        ids = random_ids(model, count, window, seed)
        end = getattr(text, "eos_token_id", None)
        if isinstance(end, int):
            ids[:, -1] = end
        return Samples(
            inputs={"pixel_values": random_pixels(model, count, seed), "input_ids": ids},
            description="random images and tokens",
        )

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Similarities (B, B) times the model's scale; (B, B, 2) of models that judge pairs.

        Raises:
            ModelError: the model compares no images with texts.
        """
        import torch

        found = _run(model, inputs)
        if "itm_score" in found:
            # The scale is a parameter of the pretraining that this class does not keep.
            scale = getattr(model.config, "logit_scale_init_value", 0.0)
            return torch.as_tensor(found["itm_score"] * math.exp(scale))
        logits: Tensor = found["logits_per_image"]
        if not _judges(model):
            return logits
        return torch.stack([torch.zeros_like(logits), logits], dim=-1)

    def draw(
        self, output: Tensor, samples: Samples, objective: str, generator: torch.Generator
    ) -> Tensor:
        """A gradient of the summed loss at the similarities, of their shape.

        Label-free it is a probe of every row's and of every column's distribution, each with half
        the weight, as the distance has them (see `tasks.draws.fisher_probe`).

        Raises:
            NumericsError: the similarities are not finite.
            RequestError: an unknown objective.
        """
        import torch

        from prunepath.statistics.objective import require_objective, take_labels_

        require_objective(objective)
        pairs = torch.arange(len(output), device=output.device)
        if output.ndim == 3:
            if objective == "kl":
                return fisher_probe(output, generator)
            return take_labels_(output, torch.eye(len(output), dtype=torch.int64))
        if objective == "kl":
            columns = fisher_probe(output.T, generator).T
            return (fisher_probe(output, generator) + columns) / math.sqrt(2)
        columns = take_labels_(output.detach().T.clone(), pairs).T
        return (take_labels_(output.detach().clone(), pairs) + columns) / 2

    def distance(self, output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
        """Mean divergence per pair from the dense answer: of rows and columns, half each."""
        from prunepath.statistics.objective import kl_to_dense

        if output.ndim == 3:  # a sum over the judgements of a row
            return kl_to_dense(output, dense) * len(output)
        return (kl_to_dense(output, dense) + kl_to_dense(output.T, dense.T)) / 2

    def loss(self, output: Tensor, samples: Samples) -> Tensor:
        """The contrastive loss the model was trained with, per pair, in nats."""
        import torch
        from torch.nn import functional

        pairs = torch.arange(len(output), device=output.device)
        if output.ndim == 3:
            matches = torch.eye(len(output), dtype=torch.int64, device=output.device)
            flat = functional.cross_entropy(output.float().flatten(0, 1), matches.flatten())
            return flat * len(output)
        rows = functional.cross_entropy(output.float(), pairs)
        columns = functional.cross_entropy(output.float().T, pairs)
        return (rows + columns) / 2

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """Recall at 1, 5 and 10 in both directions, over all samples at once.

        Raises:
            NumericsError: the embeddings are not finite.
            RequestError: the samples do not say which pairs are of the same image.
        """
        import torch

        from prunepath.tasks.retrieval import recalls

        groups = require_labels(samples)
        images: list[Tensor] = []
        texts: list[Tensor] = []
        for _, inputs in each_batch(model, samples, self.counts.batch, "retrieval", progress):
            for parts, embeddings in zip((images, texts), _embed(model, inputs), strict=True):
                require_finite(embeddings)
                parts.append(embeddings)
        found = recalls(torch.cat(images), torch.cat(texts), groups)
        return Metric(
            name=self.metric_name,
            value=found.pop(self.metric_name),
            higher_is_better=self.higher_is_better,
            samples=len(samples),
            others=found,
        )


def _judges(model: Any) -> bool:
    """Whether the model judges every pair by itself instead of choosing among those of a batch."""
    return hasattr(model, "logit_bias")


def _run(model: Any, inputs: Mapping[str, Tensor]) -> Any:
    switches = {}
    if "use_itm_head" in inspect.signature(model.forward).parameters:
        switches["use_itm_head"] = False  # compare embeddings, as retrieval does
    found = model(**float_like(model, inputs), **switches)
    if "logits_per_image" not in found and "itm_score" not in found:
        raise ModelError(
            f"'{type(model).__name__}' gives {', '.join(found)} and no similarities of images and "
            "texts; use a model such as CLIP, SigLIP or BLIP, or name another task"
        )
    return found


def _embed(model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Normalised embeddings of the images and the texts of a batch, (B, D) each."""
    from torch.nn import functional

    found = _run(model, inputs)
    if "image_embeds" in found and "text_embeds" in found:
        pair = (found["image_embeds"], found["text_embeds"])
    else:
        pair = (
            model.vision_proj(found["last_hidden_state"][:, 0]),
            model.text_proj(found["question_embeds"][:, 0]),
        )
    return functional.normalize(pair[0], dim=-1), functional.normalize(pair[1], dim=-1)


IMAGE_TEXT = ImageText()
