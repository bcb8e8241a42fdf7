"""Texts run with others of their length: fewer rows, the same scores."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from prunepath.data.samples import Samples
from prunepath.methods.optin.batching import by_length, lengths
from prunepath.methods.optin.config import OptinConfig
from prunepath.methods.optin.exact import measure
from prunepath.methods.optin.gauss_newton import gauss_newton_scores
from prunepath.methods.optin.scene import Scene
from prunepath.structure.gates import frozen
from tests.optin.scenes import context
from tests.optin.test_exact import Notes, some


def price(passes: list[list[int]], sizes: list[int], rows: int) -> float:
    """Rows with their padding, and what passes cost by themselves."""
    return sum(len(each) * max(sizes[i] for i in each) + rows / 64 for each in passes)


@pytest.mark.parametrize("rows", [12, 40, 100])
def test_no_other_division_by_length_is_cheaper(rows: int) -> None:
    sizes = [3, 9, 4, 4, 12, 1, 10]
    found = by_length(sizes, rows, most=4)
    assert sorted(itertools.chain(*found)) == list(range(7))
    assert all(len(each) <= 4 for each in found)
    order = sorted(range(7), key=lambda i: sizes[i])
    best = float("inf")
    for ends in itertools.product([False, True], repeat=6):
        cuts = [0, *(i + 1 for i, end in enumerate(ends) if end), 7]
        passes = [order[a:b] for a, b in itertools.pairwise(cuts)]
        padded = [len(each) * max(sizes[i] for i in each) for each in passes]
        if max(padded) <= rows and max(map(len, passes)) <= 4:
            best = min(best, price(passes, sizes, rows))
    assert price(found, sizes, rows) == pytest.approx(best)


def test_a_sample_longer_than_a_pass_runs_alone() -> None:
    assert by_length([2, 90, 3], rows=80, most=9) == [[0, 2], [1]]


def uneven(name: str, count: int = 6) -> Samples:
    """Texts of lengths from 3 tokens to all."""
    inputs = {
        key: value.clone() for key, value in context(name, True, count).samples.inputs.items()
    }
    for sample in range(count):
        for key in ("attention_mask", "decoder_attention_mask"):
            if key in inputs:
                inputs[key][sample] = 1
                inputs[key][sample, 3 + sample :] = 0
    return Samples(inputs=inputs)


def scenes(name: str, task: object = None, **settings: object) -> tuple[Scene, Scene]:
    """Texts as they came, and by length."""
    there = replace(context(name, True), samples=uneven(name))
    there = there if task is None else replace(there, task=task)  # type: ignore[arg-type]
    config = OptinConfig(**{"candidates_tokens": 60, **settings})  # type: ignore[arg-type]
    with frozen(there.model):
        found = Scene.of(there, config)
    return replace(found, shortens=False), found


@pytest.mark.parametrize("name", ["bert", "t5", "albert"])
def test_texts_by_length_score_as_they_do_padded(name: str) -> None:
    padded, short = scenes(name)
    assert short.shortens
    rows = [
        sum(len(part.samples) * max(part.rows.lengths) for part in found.parts)
        for found in (padded, short)
    ]
    assert rows[1] < 0.85 * rows[0]
    wanted = some(padded, 3)
    one, other = measure(padded, wanted, "a"), measure(short, wanted, "b")
    for group in wanted:
        for left, right in zip(one[group], other[group], strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-12)


def test_estimates_have_the_same_mean() -> None:
    padded, short = scenes("bert", probes=300)
    one, other = gauss_newton_scores(padded), gauss_newton_scores(short)
    for name in one.md:
        own, true = other.md[name].sum(1), one.md[name].sum(1)
        assert own.sum() == pytest.approx(true.sum(), rel=0.1)
        assert other.kd[name].sum() == pytest.approx(one.kd[name].sum(), rel=0.2)


def test_a_model_that_counts_padding_keeps_it() -> None:
    there = replace(context("bert", True), samples=uneven("bert"))
    notes = Notes()
    handle = there.model.bert.embeddings.register_forward_hook(
        lambda _, __, output: output + 0.1 * output.shape[1]
    )
    try:
        with frozen(there.model):
            found = Scene.of(replace(there, progress=notes), OptinConfig())
    finally:
        handle.remove()
    assert not found.shortens
    assert "padded to the longest of all, because this model answers otherwise" in notes.notes[0]


def test_images_and_texts_of_one_length_run_as_they_came() -> None:
    for name in ("vit", "swin", "llama", "clip"):
        there = context(name)
        with frozen(there.model), torch.no_grad():
            found = Scene.of(there, OptinConfig(candidates_tokens=1))
        assert not found.shortens
        assert found.divided() == [[0], [1], [2]]


def test_what_compares_samples_sees_all_of_them() -> None:
    """However they are divided into passes."""
    from prunepath.tasks.sentence_embedding import SentenceEmbedding

    class Logits(SentenceEmbedding):
        def output(self, model: object, inputs: object) -> torch.Tensor:
            logits = model(**inputs).logits  # type: ignore[operator]
            return torch.nn.functional.normalize(logits, dim=-1)

    padded, short = scenes("bert", Logits(), candidates_tokens=9)
    one_pass = scenes("bert", Logits(), candidates_tokens=9999)[0]
    assert len(one_pass.parts) == 1
    assert len(padded.parts) > 3
    wanted = some(padded, 2)
    expected = measure(one_pass, wanted, "c")
    for found in (padded, short):
        scores = measure(found, wanted, "d")
        for group in wanted:
            np.testing.assert_allclose(scores[group][1], expected[group][1], rtol=1e-6, atol=1e-12)
            assert scores[group][1].max() > 0


def test_lengths_count_to_the_last_real_token() -> None:
    mask = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1]])
    assert lengths(Samples(inputs={"input_ids": mask, "attention_mask": mask})) == [3, 2, 4]


def test_a_part_counts_for_the_tokens_its_answer_is_compared_on() -> None:
    """Hidden ones, of which a short text may have none."""
    samples = uneven("albert")
    labels = torch.full_like(samples.inputs["input_ids"], -100)
    labels[2:, ::2] = 1
    labels[samples.inputs["attention_mask"] == 0] = -100
    there = replace(context("albert", True), samples=replace(samples, labels=labels))
    with frozen(there.model):
        short = Scene.of(there, OptinConfig(candidates_tokens=9))
        whole = Scene.of(there, OptinConfig(candidates_tokens=9999))
    whole = replace(whole, shortens=False)
    assert len(short.parts) > 3
    assert len(whole.parts) == 1
    assert any(short.share(part) == 0 for part in short.parts)
    assert sum(map(short.share, short.parts)) == pytest.approx(1)
    wanted = some(short, 2)
    one, other = measure(whole, wanted, "a"), measure(short, wanted, "b")
    for group in wanted:
        np.testing.assert_allclose(one[group][1], other[group][1], rtol=1e-6, atol=1e-12)
