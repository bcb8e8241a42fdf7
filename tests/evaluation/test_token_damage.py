"""What merging in one block does: against the definition, and nothing of the model is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.optin.scenes import context

from prunepath.allocation.tokens import schedule_from_scores
from prunepath.api.merging import token_site
from prunepath.errors import RequestError
from prunepath.evaluation.token_damage import token_damage
from prunepath.methods.optin.config import OptinConfig
from prunepath.structure.gates import frozen
from prunepath.structure.tokens import TokenSchedule
from prunepath.surgery.merging import merging


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_the_answer_counts_by_its_distance(name: str) -> None:
    """What lambda adds is proportional to the distance of the answer, measured on plain runs."""
    found = context(name)
    site = token_site(found.model, found.task, found.structure)
    most = (site.tokens - site.protected) // 2
    totals = []
    for weight in (0.0, 1.0):
        config = OptinConfig(tokens=0, lambda_kd=weight)
        scores = token_damage(
            found.model, found.structure, found.task, found.samples, site, config=config
        )
        assert scores.shape == (site.num_layers, most)
        assert (scores >= 0).all()
        totals.append(scores.sum(axis=1))
    distances = []
    inputs = found.samples.inputs
    with frozen(found.model), torch.no_grad():
        dense = found.task.output(found.model, inputs).double()
        for block in range(site.num_layers):
            dropped = tuple(most if each == block else 0 for each in range(site.num_layers))
            with merging(found.model, TokenSchedule(site=site, dropped=dropped)):
                own = found.task.output(found.model, inputs).double()
            distances.append(max(float(found.task.distance(own, dense, found.samples)), 0.0))
    added = totals[1] - totals[0]
    assert max(distances) > 0
    assert added / added.max() == pytest.approx(np.array(distances) / max(distances), abs=1e-3)


@pytest.mark.parametrize("norm", ["sum", "mean"])
def test_relations_are_those_of_patches_given_back(norm: str) -> None:
    """With lambda 0 the score of a block is that of the features behind it, each of all patches."""
    found = context("vit")
    site = token_site(found.model, found.task, found.structure)
    config = OptinConfig(tokens=0, lambda_kd=0.0, md_norm=norm)
    scores = token_damage(
        found.model, found.structure, found.task, found.samples, site, config=config
    )
    most = (site.tokens - site.protected) // 2
    vit = found.model.vit
    for block in range(site.num_layers):
        grams: list[list[torch.Tensor]] = []
        dropped = tuple(most if each == block else 0 for each in range(site.num_layers))
        for schedule in (None, TokenSchedule(site=site, dropped=dropped)):
            features: list[torch.Tensor] = []
            grams.append(features)
            _run(found, vit, schedule, features)
        moved = [
            float((own - dense).square().sum())
            for dense, own in zip(grams[0], grams[1], strict=True)
        ]
        behind = site.num_layers - block
        assert all(each == 0 for each in moved[: block + 1])
        expected = sum(moved) / (behind if norm == "mean" else 1)
        assert scores[block].sum() == pytest.approx(expected, rel=1e-3)


def _run(found, vit, schedule, grams) -> None:  # type: ignore[no-untyped-def]
    """Collect the Gram matrix of every feature, patches given back by hand."""
    from contextlib import ExitStack

    from prunepath.surgery.merging import merged_so_far

    layers = [module for name, module in vit.named_modules() if name.split(".")[-1].isdigit()]
    where: list[torch.Tensor | None] = [None]

    def entered(_, args, kwargs):  # type: ignore[no-untyped-def]
        merged = merged_so_far(args[0])
        where[0] = None if merged is None else merged.where

    def keep(_, __, output):  # type: ignore[no-untyped-def]
        full = output.double()
        if where[0] is not None and full.shape[1] != where[0].shape[1]:
            full = torch.stack([row[place] for row, place in zip(full, where[0], strict=True)])
        rows = torch.nn.functional.normalize(full, dim=-1).flatten(0, 1)
        grams.append(rows @ rows.T)

    with ExitStack() as stack, torch.no_grad(), frozen(found.model):
        if schedule is not None:
            stack.enter_context(merging(found.model, schedule))
        for layer in layers:
            hook = layer.register_forward_pre_hook(entered, with_kwargs=True)
            stack.callback(hook.remove)
            stack.callback(layer.layernorm_before.register_forward_hook(keep).remove)
        stack.callback(vit.layernorm.register_forward_hook(keep).remove)
        found.task.output(found.model, found.samples.inputs)


def test_the_model_is_what_it_was() -> None:
    found = context("vit")
    site = token_site(found.model, found.task, found.structure)
    classes = [type(module) for module in found.model.modules()]
    hooks = [len(module._forward_hooks) for module in found.model.modules()]
    with torch.no_grad():
        before = found.task.output(found.model, found.samples.inputs)
    token_damage(found.model, found.structure, found.task, found.samples, site)
    assert [type(module) for module in found.model.modules()] == classes
    assert [len(module._forward_hooks) for module in found.model.modules()] == hooks
    assert not any("merging" in vars(module) for module in found.model.modules())
    with torch.no_grad():
        assert torch.equal(found.task.output(found.model, found.samples.inputs), before)


def test_they_make_a_schedule() -> None:
    found = context("vit")
    site = token_site(found.model, found.task, found.structure)
    scores = token_damage(found.model, found.structure, found.task, found.samples, site)
    limit = 0.8 * site.tokens * site.num_layers
    made = schedule_from_scores(site, scores, limit, lambda schedule: sum(schedule.left))
    assert sum(made.left) <= limit
    assert sum(made.dropped) > 0
    again = token_damage(found.model, found.structure, found.task, found.samples, site)
    assert np.array_equal(scores, again)


def test_text_is_refused() -> None:
    found = context("bert")
    with pytest.raises(RequestError, match="tokens of this 'bert' model cannot merge"):
        token_site(found.model, found.task, found.structure)
