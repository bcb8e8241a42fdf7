"""`search`: what it writes, that it repeats itself, and how it is interrupted and refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import prunepath
from prunepath.api.search import search
from prunepath.errors import (
    DataError,
    DiskError,
    ModelError,
    NumericsError,
    PrunepathError,
    RequestError,
)
from tests.api.fixtures import SEARCH, save_tiny
from tests.conformance.families import tiny

T = TypeVar("T")


class StopAt:
    """A listener that is Ctrl-C: it raises at one item of all those with that label."""

    def __init__(self, label: str, index: int) -> None:
        self.label, self.left = label, index

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        for item in items:
            if label == self.label:
                if self.left == 0:
                    raise KeyboardInterrupt
                self.left -= 1
            yield item

    def note(self, message: str) -> None:
        pass


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_writes_a_small_path_and_what_the_refit_needs(path_folder: Path) -> None:
    assert set(contents(path_folder)) == {
        "path.safetensors",
        "statistics.safetensors",
        "calibration.safetensors",
        "outputs-00000.safetensors",
        "outputs-00001.safetensors",
    }
    assert (path_folder / "path.safetensors").stat().st_size < 1_000_000
    assert [item.name for item in path_folder.parent.iterdir()] == ["path"], "state was left behind"


def test_the_public_name_stays_the_verb_after_a_search(path_folder: Path) -> None:
    # A folder of the package has the same name, and importing it must not take the verb's place.
    assert prunepath.search is search


def test_the_path_says_where_it_comes_from(path_folder: Path, model_folder: Path) -> None:
    made = prunepath.SolutionPath.from_pretrained(path_folder).provenance
    assert made.model_id == str(model_folder)
    assert (made.method, made.objective, made.seed, made.task) == ("spp", "kl", 0, "causal-lm")
    assert (made.tokens, made.samples, made.calibration_size) == (3 * 32, 3, "96 tokens")
    assert made.library_version == prunepath.__version__


def test_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, path_folder: Path, model_folder: Path, text_file: Path
) -> None:
    search(model_folder, output=tmp_path / "again", data=text_file, **SEARCH)
    assert contents(tmp_path / "again") == contents(path_folder)


def test_another_seed_gives_another_random_path(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    one, two = (
        search(
            model_folder,
            output=tmp_path / str(seed),
            data=text_file,
            method="random",
            seed=seed,
            **SEARCH,
        )
        for seed in (1, 2)
    )
    assert one.removal_order != two.removal_order


def test_a_model_object_and_an_iterable_will_do(
    tmp_path: Path, path_folder: Path, model_folder: Path, tiny_tokenizer: Any, tiny_text: str
) -> None:
    found = search(
        prunepath.load(model_folder),
        tokenizer=tiny_tokenizer,
        output=tmp_path / "path",
        data=[tiny_text],
        **SEARCH,
    )
    expected = prunepath.SolutionPath.from_pretrained(path_folder)
    assert found.removal_order == expected.removal_order


def count_passes(run: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every batch that is run from now on adds the name of what ran it."""
    passes: list[str] = []

    def watched(name: str) -> None:
        original = getattr(run, name)

        def counted(*args: Any) -> None:
            passes.append(name)
            original(*args)

        monkeypatch.setattr(run, name, counted)

    watched("draw_backward")
    watched("_forward")
    return passes


@pytest.mark.parametrize("index", range(5))
def test_interrupted_while_calibrating_it_goes_on_to_the_same_bytes(
    index: int,
    tmp_path: Path,
    path_folder: Path,
    model_folder: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prunepath.statistics import run

    monkeypatch.setattr(run, "_SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    monkeypatch.setattr(run, "_WORK_PER_CHECKPOINT", 0.0)
    target = tmp_path / "path"
    with pytest.raises(KeyboardInterrupt):
        search(
            model_folder,
            output=target,
            data=text_file,
            progress=StopAt("calibrating", index),
            **SEARCH,
        )
    assert not target.exists()
    assert [item.name for item in tmp_path.iterdir()] == [".path.search"]
    passes = count_passes(run, monkeypatch)
    search(model_folder, output=target, data=text_file, **SEARCH)
    # Three windows with gradients, then two more for the moments.
    expected = [*["draw_backward"] * 3, *["_forward"] * 2]
    assert passes == expected[index:], "finished windows are not run again"
    assert contents(target) == contents(path_folder)
    assert [item.name for item in tmp_path.iterdir()] == ["path"]


@pytest.mark.parametrize("where", ["prunepath.methods.method.total_order", "prunepath.files._swap"])
def test_interrupted_at_the_end_it_goes_on_to_the_same_bytes(
    where: str,
    tmp_path: Path,
    path_folder: Path,
    model_folder: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "path"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(where, interrupt)
        search(model_folder, output=target, data=text_file, **SEARCH)
    assert [item.name for item in tmp_path.iterdir()] == [".path.search"]
    search(model_folder, output=target, data=text_file, **SEARCH)
    assert contents(target) == contents(path_folder)
    assert [item.name for item in tmp_path.iterdir()] == ["path"]


def test_another_request_does_not_go_on_with_an_old_one(
    tmp_path: Path, path_folder: Path, model_folder: Path, text_file: Path
) -> None:
    target = tmp_path / "path"
    with pytest.raises(KeyboardInterrupt):
        search(
            model_folder,
            output=target,
            data=text_file,
            seed=1,
            progress=StopAt("calibrating", 2),
            **SEARCH,
        )
    search(model_folder, output=target, data=text_file, **SEARCH)
    assert contents(target) == contents(path_folder)


def nan_model(folder: Path, tokenizer: Any) -> Path:
    import torch

    model = tiny("Llama", vocab_size=300)
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.down_proj.weight")[0, 0] = float("nan")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def refused(tmp_path: Path, error: type[PrunepathError], match: str, **wish: Any) -> None:
    """The search fails with that message and leaves nothing beside its output."""
    parent = tmp_path / "outputs"
    parent.mkdir()
    with pytest.raises(error, match=match):
        search(**{"output": parent / "path", **SEARCH, **wish})
    assert list(parent.iterdir()) == []


def test_too_little_text_is_refused(tmp_path: Path, model_folder: Path) -> None:
    refused(
        tmp_path,
        DataError,
        "4 windows of 32 tokens need at least 128 tokens, but .* has only .* give more text",
        model=model_folder,
        data=["only a few words"],
    )


def test_no_text_is_refused(tmp_path: Path, model_folder: Path) -> None:
    refused(tmp_path, DataError, "there is no text in", model=model_folder, data=["", " "])


def test_a_nan_weight_is_named(tmp_path: Path, text_file: Path, tiny_tokenizer: Any) -> None:
    refused(
        tmp_path,
        NumericsError,
        "the weight 'model.layers.1.mlp.down_proj.weight' holds NaN or infinity",
        model=nan_model(tmp_path / "model", tiny_tokenizer),
        data=text_file,
    )


def test_nan_in_the_answers_is_named(tmp_path: Path, text_file: Path, tiny_tokenizer: Any) -> None:
    import torch

    model = tiny("Llama", vocab_size=300)
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.down_proj.weight").fill_(3e38)
    refused(
        tmp_path,
        NumericsError,
        "the model answers NaN to a random sample; check its weights",
        model=model,
        tokenizer=tiny_tokenizer,
        data=text_file,
    )


def test_an_unknown_model_type_is_named(
    tmp_path: Path, text_file: Path, tiny_tokenizer: Any
) -> None:
    from transformers import CTRLConfig, CTRLLMHeadModel

    config = CTRLConfig(vocab_size=300, n_embd=16, dff=32, n_layer=1, n_head=2)
    refused(
        tmp_path,
        ModelError,
        "cannot search a model of type 'ctrl': no family table covers it",
        model=CTRLLMHeadModel(config),
        tokenizer=tiny_tokenizer,
        data=text_file,
    )


def test_a_model_that_is_not_there_is_refused(tmp_path: Path, model_folder: Path) -> None:
    refused(
        tmp_path,
        ModelError,
        "there is no model folder .* did you mean '.*dense'?",
        model=model_folder.with_name("dens"),
    )


def test_a_model_without_tokenizer_asks_for_one(tmp_path: Path, text_file: Path) -> None:
    refused(
        tmp_path,
        DataError,
        "has no tokenizer beside it, and text was given; pass one with --tokenizer",
        model=tiny("Llama"),
        data=text_file,
    )


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"method": "sppp"}, "unknown method 'sppp'; did you mean 'spp'"),
        ({"objective": "kll"}, "unknown objective 'kll'; use 'kl'"),
        ({"config": {"round": 3}}, "this method has no setting 'round'; it has .*rounds"),
        ({"config": {"rounds": 0}}, "rounds is 0; it must be at least 1"),
        ({"windows": 0}, "windows is 0; it must be at least 1"),
        ({"window": 1}, "window is 1; it must be at least 2"),
        ({"refit_windows": -1}, "refit_windows is -1"),
        ({"holdout_windows": 0}, "holdout_windows is 0"),
        ({"moment_windows": -1}, "moment_windows is -1"),
    ],
)
def test_malformed_requests_are_refused_before_the_model_is_loaded(
    wish: dict[str, Any], match: str, tmp_path: Path
) -> None:
    refused(tmp_path, RequestError, match, model="no/such-model", **wish)


def test_a_full_disk_is_refused_before_the_calibration(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    refused(
        tmp_path,
        DiskError,
        "needs .* but only 1.00 KB are free there; free some space",
        model=model_folder,
        data=text_file,
    )


def test_a_folder_in_use_is_kept_unless_asked(
    tmp_path: Path, path_folder: Path, model_folder: Path, text_file: Path
) -> None:
    target = tmp_path / "path"
    target.mkdir()
    (target / "mine.txt").write_text("keep")
    wish: dict[str, Any] = {"output": target, "data": text_file, **SEARCH}
    with pytest.raises(DiskError, match="already exists and is not empty; .*--overwrite"):
        search(model_folder, **wish)
    assert (target / "mine.txt").read_text() == "keep"
    search(model_folder, overwrite=True, **wish)
    assert contents(target) == contents(path_folder)


def test_families_of_the_same_table_are_searched(
    tmp_path: Path, tiny_tokenizer: Any, text_file: Path
) -> None:
    folder = save_tiny(tmp_path / "qwen2", tiny_tokenizer, "Qwen2", tie_word_embeddings=True)
    path = search(folder, output=tmp_path / "path", data=text_file, **SEARCH)
    assert path.structure.model_type == "qwen2"
