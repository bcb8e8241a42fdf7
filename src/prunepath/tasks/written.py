"""What all tasks say alike whose answer is written by a decoder, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunepath.tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.data.samples import Samples

__all__ = ["Written"]


class Written(Task):
    """A task whose output is the decoder's logits (B, T, V); padding of the answer never counts."""

    loss_rows = "token"
    distribution = True

    def draw(
        self, output: Tensor, samples: Samples, objective: str, generator: torch.Generator
    ) -> Tensor:
        from prunepath.tasks.decoding import draw_tokens

        return draw_tokens(output, samples, objective, generator)

    def counted(self, output: Tensor, samples: Samples) -> Tensor | None:
        from prunepath.tasks.decoding import counting

        return counting(samples)

    def distance(self, output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
        from prunepath.tasks.decoding import token_distance

        return token_distance(output, dense, samples)

    def loss(self, output: Tensor, samples: Samples) -> Tensor:
        from prunepath.tasks.decoding import token_loss

        return token_loss(output, samples)
