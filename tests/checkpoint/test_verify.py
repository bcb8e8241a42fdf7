"""What was written is read back where nothing of this process is left, and compared."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prunepath.checkpoint import auto, readback, verify
from prunepath.checkpoint.save import is_stock, save_model
from prunepath.checkpoint.verify import verify_reload
from prunepath.data.samples import Samples
from prunepath.errors import ExactnessError
from prunepath.structure.discover import discover
from prunepath.structure.selection import everything
from prunepath.surgery.cut import cut
from tests.checkpoint.models import KINDS, narrow_, toy_reshape_


def samples(kind: str) -> Samples:
    return Samples(inputs=KINDS[kind].inputs())


def uneven(kind: str) -> Any:
    """A model whose first layer really lost some FFN channels."""
    model = KINDS[kind].build()
    structure = discover(model)
    group = next(group for group in structure.groups if group.kind == "ffn_channel")
    return cut(model, structure, everything(structure).without([(group, np.arange(7))]))


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        pytest.param("bert-classifier", uneven, id="cut, a head by its config"),
        pytest.param("t5", lambda kind: KINDS[kind].build(), id="stock, two stacks and a cache"),
    ],
)
def test_a_fresh_process(kind: str, make: Callable[[str], Any], tmp_path: Path) -> None:
    model = make(kind)
    save_model(model, None, tmp_path)
    found = verify_reload(model, tmp_path, samples(kind), stock=is_stock(model))
    assert found.difference <= found.allowed
    assert found.loader == ("transformers" if is_stock(model) else "prunepath")
    assert found.samples == 2


def test_a_fresh_process_that_cannot_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        assert command[-2] == "prunepath:AutoModelForSequenceClassification"
        return subprocess.CompletedProcess(command, 1, stderr="Traceback\nOSError: no such file.\n")

    monkeypatch.setattr(subprocess, "run", fails)
    model = uneven("bert-classifier")
    save_model(model, None, tmp_path)
    message = "not load in a fresh process with prunepath: OSError: no such file. Nothing was kept"
    with pytest.raises(ExactnessError, match=message):
        verify_reload(model, tmp_path, samples("bert-classifier"), stock=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loader", ["Auto class", "prunepath.load"])
def test_the_program(
    kind: str, loader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "reshape_", toy_reshape_)
    model = KINDS[kind].build()
    narrow_(model, KINDS[kind])
    save_model(model, None, tmp_path)
    save_file(KINDS[kind].inputs(), tmp_path / "inputs")
    name = KINDS[kind].auto_class if loader == "Auto class" else ""
    written, threads = tmp_path / "outputs", str(torch.get_num_threads())
    readback.main(
        str(tmp_path), str(tmp_path / "inputs"), str(written), f"prunepath:{name}", threads
    )
    found, expected = load_file(written), readback.answers(model, KINDS[kind].inputs())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_every_floating_answer_is_compared_and_no_cache() -> None:
    found = readback.answers(KINDS["clip"].build(), KINDS["clip"].inputs())
    assert {"logits_per_image", "text_model_output.last_hidden_state"} <= set(found)
    assert set(readback.answers(KINDS["t5"].build(), KINDS["t5"].inputs())) == {
        "logits",
        "encoder_last_hidden_state",
    }


@pytest.fixture
def read_back(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace what the fresh process answers."""

    def answer(change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
        def instead(model: Any, folder: Path, given: Samples, *, stock: bool) -> Any:
            found = readback.answers(model, given.inputs)
            change(found)
            return found

        monkeypatch.setattr(verify, "_read_back", instead)

    return answer


def test_differences_are_named_and_measured(read_back: Any, tmp_path: Path) -> None:
    model, given = KINDS["clip"].build(), samples("clip")
    read_back(lambda found: found["text_embeds"].add_(0.5))
    with pytest.raises(ExactnessError, match=r"differs .* by 0.5 in its text_embeds .allowed: 1e-"):
        verify_reload(model, tmp_path, given, stock=True)
    read_back(lambda found: found["text_embeds"].fill_(torch.nan))
    with pytest.raises(ExactnessError, match="by nan in its text_embeds"):
        verify_reload(model, tmp_path, given, stock=True)
    read_back(lambda found: found.update(text_embeds=found["text_embeds"][:1]))
    with pytest.raises(ExactnessError, match=r"answers text_embeds of shape .1, 8. where the one"):
        verify_reload(model, tmp_path, given, stock=True)
    read_back(lambda found: found.pop("text_embeds"))
    with pytest.raises(ExactnessError, match="read back in a fresh process with transformers, ans"):
        verify_reload(model, tmp_path, given, stock=True)


def test_rounding_is_allowed_in_proportion(read_back: Any, tmp_path: Path) -> None:
    model, given = KINDS["vit"].build(), samples("vit")
    with torch.no_grad():
        model.classifier.weight.mul_(1e4)
    read_back(lambda found: found["logits"].add_(1e-3))
    found = verify_reload(model, tmp_path, given, stock=True)
    assert found.difference == pytest.approx(1e-3, rel=0.3)
    assert found.allowed > found.difference


def test_equal_infinities_are_equal(read_back: Any, tmp_path: Path) -> None:
    model, given = KINDS["vit"].build(), samples("vit")
    with torch.no_grad():
        model.classifier.bias[0] = -torch.inf
    read_back(lambda found: None)
    assert verify_reload(model, tmp_path, given, stock=True).difference == 0.0
