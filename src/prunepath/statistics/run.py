"""The calibration pass as one resumable job.

Every batch draws its labels from a generator of its own, so the sums after k batches depend on
nothing but those batches; a pass that was interrupted goes on from its last checkpoint and ends
with the same bits. The first few batches also leave the consumers' outputs on disk, batch by
batch: the sequential refit aims at them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError, PathFileError
from prunepath.progress import Progress, track
from prunepath.statistics.collect import Wanted, recording
from prunepath.statistics.sums import STATISTICS_FILE, Statistics
from prunepath.structure.gates import frozen
from prunepath.structure.units import Structure

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.tasks.task import Task

__all__ = ["collect", "draw_backward", "load_outputs", "outputs_file"]

_SECONDS_BETWEEN_CHECKPOINTS = 20.0
_WORK_PER_CHECKPOINT = 40.0  # seconds of work for each second of writing


def outputs_file(folder: Path, batch: int) -> Path:
    """Where the consumers' outputs on one batch lie."""
    return folder / f"outputs-{batch:05d}.safetensors"


def collect(
    model: nn.Module,
    structure: Structure,
    task: Task,
    samples: Samples,
    wanted: Wanted,
    *,
    objective: str,
    seed: int,
    folder: Path,
    output_batches: int,
    onto: Statistics | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Run the calibration pass, or what is left of it, in batches of `task.counts.batch`.

    Args:
        model: the dense model.
        structure: its structure.
        task: what the model is run for.
        samples: calibration samples.
        wanted: which sums to form.
        objective: `"kl"` or `"task"`.
        seed: seed of the label draws.
        folder: where checkpoints are kept; the finished statistics end there, too.
        output_batches: batches whose consumer outputs are kept.
        onto: sums of an earlier pass to add to, in place; None begins at zero.
        progress: who listens.

    Returns:
        The sums over all samples.

    Raises:
        NumericsError: outputs or sums that are not finite.
    """
    file = folder / STATISTICS_FILE
    before = onto.windows if onto is not None else 0
    sums = _resume(file) or onto or Statistics()
    size = task.counts.batch
    last_saved, pause = time.monotonic(), _SECONDS_BETWEEN_CHECKPOINTS
    per_sample = task.loss_rows == "sample"
    with (
        frozen(model),
        recording(model, structure, wanted, sums, per_sample=per_sample) as recorder,
    ):
        batches = list(samples.batches(size))
        todo = range(sums.windows - before, len(batches))
        for index in track(progress, todo, "calibrating", len(todo)):
            batch = batches[index]
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            with _keeping_outputs(model, structure, folder, index, index < output_batches):
                recorder.begin(batch)
                if wanted.backward:
                    draw_backward(model, task, batch, objective, generator, index)
                else:
                    _forward(model, task, batch)
            if time.monotonic() - last_saved > pause:
                started = time.monotonic()
                sums.save(file)
                last_saved = time.monotonic()
                writing = last_saved - started
                pause = max(_SECONDS_BETWEEN_CHECKPOINTS, _WORK_PER_CHECKPOINT * writing)
    for table, key, value in sums.items():
        if not torch.isfinite(value).all():
            raise NumericsError(
                f"the statistics '{table}' of '{key}' are not finite; load the model in float32 or "
                "bfloat16"
            )
    sums.save(file)
    return sums


def draw_backward(
    model: nn.Module,
    task: Task,
    batch: Samples,
    objective: str,
    generator: torch.Generator,
    index: int,
) -> None:
    """Forward, and backward from a gradient drawn at the answer.

    Raises:
        NumericsError: the answer is not finite; batch `index` is named.
    """
    output = task.output(model, batch.to(_device(model)))
    try:
        gradient = task.draw(output, batch, objective, generator)
    except NumericsError as error:
        raise NumericsError(f"calibration batch {index}: {error}") from None
    torch.autograd.backward(output, gradient.to(output.dtype))


@torch.no_grad()
def _forward(model: nn.Module, task: Task, batch: Samples) -> None:
    task.body(model, batch.to(_device(model)))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _resume(file: Path) -> Statistics | None:
    if not file.exists():
        return None
    try:
        return Statistics.load(file)[0]
    except PathFileError:
        return None  # the checkpoint itself was cut short: begin again


@contextmanager
def _keeping_outputs(
    model: nn.Module, structure: Structure, folder: Path, index: int, wanted: bool
) -> Iterator[None]:
    """Write what every consumer puts out while the block runs."""
    if not wanted:
        yield
        return
    from safetensors.torch import save_file

    from prunepath.files import atomic_write

    outputs: dict[str, Tensor] = {}
    names = dict.fromkeys(
        group.consumer
        for group in structure.groups  # what a router sends elsewhere later cannot be compared
        if group.consumer and not structure.places_by_path[group.place].routed
    )
    handles = []
    for name in names:

        def keep(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
            if name not in outputs:  # a checkpointed layer runs twice
                # Half the bytes, and bfloat16 holds the largest activations where float16 cannot.
                outputs[name] = output.detach().to(torch.bfloat16).cpu()

        handles.append(model.get_submodule(name).register_forward_hook(keep))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    with atomic_write(outputs_file(folder, index)) as beside:
        save_file(outputs, beside)


def load_outputs(folder: Path, batches: int) -> dict[str, Tensor]:
    """Consumer outputs of the first batches, name -> (samples, ..., O), as stored.

    Raises:
        PathFileError: a file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    parts: dict[str, list[Tensor]] = {}
    for index in range(batches):
        file = outputs_file(folder, index)
        try:
            for name, value in load_file(file).items():
                parts.setdefault(name, []).append(value)
        except (SafetensorError, OSError) as error:
            raise PathFileError(
                f"the file {file} is missing or damaged ({error}), and the sequential refit aims "
                "at it; search again, or extract with --refit moments"
            ) from None
    return {name: torch.cat(values) for name, values in parts.items()}
