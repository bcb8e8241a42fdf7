"""What a task is: how data becomes samples, what a model's answer is, and how good it is.

A task joins the rooms that know models only by their modules to what people use models for. The
search sees three things of it: an output tensor, a gradient of that tensor, and rows of samples.
A new task is one file with one subclass and one line in `TASKS`.

Shapes: B samples of a batch; an output is (B, T, V), (B, C) or whatever the task calls its answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from prunepath.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.data.samples import Samples
    from prunepath.progress import Progress

__all__ = ["TASKS", "Counts", "DataRequest", "Metric", "Task"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many samples each part of a search takes by default.

    Args:
        windows: for gradients.
        refit: of those, how many the sequential refit aims at.
        holdout: further ones, on which the refit's strength is chosen.
        moments: further ones, forward only, for second moments.
        evaluation: for `evaluate`; None takes all there are.
        batch: samples of one forward pass.
    """

    windows: int
    refit: int
    holdout: int
    moments: int
    evaluation: int | None
    batch: int


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """What of the user's data is wanted.

    Args:
        count: samples that must be there; None takes all.
        extra: more to take where there are more.
        window: tokens per sample, for tasks that cut or pad text; None: the task's own.
        field: name of the text column; empty: the task's usual names.
        label_field: name of the label column; empty: the task's usual names.
        split: split of a dataset id or of the packaged text.
        seed: of any shuffling.
        labels: whether labels are needed (evaluation) or ignored (label-free calibration).
    """

    count: int | None
    extra: int = 0
    window: int | None = None
    field: str = ""
    label_field: str = ""
    split: str | None = None
    seed: int = 0
    labels: bool = False


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One quality figure, under the name the field knows it by.

    Args:
        name: `"perplexity"`, `"accuracy"`, `"spearman"`, ...
        value: as usually stated (accuracies and correlations in percent).
        higher_is_better: which way is up.
        samples: how many samples it is over.
        others: further figures of the same run, name -> value.
    """

    name: str
    value: float
    higher_is_better: bool
    samples: int
    others: Mapping[str, float]

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f}"


class Task:
    """A task; subclass, set the class attributes and implement what raises NotImplementedError."""

    name: ClassVar[str]
    summary: ClassVar[str]
    auto_classes: ClassVar[tuple[str, ...]]
    """Auto classes of transformers that load models for it, the usual one first."""
    architectures: ClassVar[tuple[str, ...]]
    """Endings of class names that tell the task: `"ForCausalLM"`."""
    loss_rows: ClassVar[Literal["token", "sample"]] = "sample"
    """Whether the loss has one term per token or one per sample: what a gate gradient sums over."""
    skip_first: ClassVar[bool] = False
    """Whether position 0 is an attention sink that would be the only thing a refit fits."""
    distribution: ClassVar[bool] = False
    """Whether every row of its answer holds the logits of one distribution, on the last axis."""
    pools_patches: ClassVar[bool] = False
    """Whether its answer pools the patches of an image, so that patches may merge on the way."""
    counts: ClassVar[Counts]
    metric_name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        """Read data for an opened model (`checkpoint.source.OpenedModel`).

        Raises:
            DataError: what was asked, what was found, what to do.
        """
        raise NotImplementedError

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        """Random samples of the model's own shapes: what exactness, FLOPs and speed are tried on.

        Args:
            model: the model.
            count: samples.
            window: tokens per sample; None: a short one.
            seed: of the draw.
        """
        raise NotImplementedError

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run the model and return its answer, differentiable where gradients are on."""
        raise NotImplementedError

    def body(self, model: Any, inputs: Mapping[str, Tensor]) -> None:
        """Run only what has units, where nobody reads the answer; by default everything."""
        self.output(model, inputs)

    def draw(
        self, output: Tensor, samples: Samples, objective: str, generator: torch.Generator
    ) -> Tensor:
        """A gradient of the summed loss at the output, the same shape as the output.

        For the label-free objective `"kl"` a random draw whose mean outer product is the
        Gauss-Newton matrix of the distance to the dense model's own answer; for `"task"` the
        gradient of the loss on the data's labels. It may reuse the memory of the output.

        Raises:
            NumericsError: the output is not finite.
            RequestError: an objective the task does not have, or no labels where they are needed.
        """
        raise NotImplementedError

    def distance(self, output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
        """Mean distance per loss row to the dense model's answer: a scalar, differentiable."""
        raise NotImplementedError

    def counted(self, output: Tensor, samples: Samples) -> Tensor | None:
        """Which rows of an answer count, bool over its axes but the last; None: all of them."""
        return None

    def loss(self, output: Tensor, samples: Samples) -> Tensor:
        """Mean loss per loss row on the data's labels: a scalar, differentiable."""
        raise NotImplementedError

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """The task's metric under its standard name."""
        raise NotImplementedError


TASKS: Registry[Task] = Registry("task", "prunepath.tasks")
