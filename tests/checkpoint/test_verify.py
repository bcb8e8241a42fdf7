"""What was written is read back where nothing of this process is left, and compared."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prunepath.checkpoint import auto, readback, verify
from prunepath.checkpoint.fresh import FreshProcess
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
    with FreshProcess(stock=is_stock(model)) as process:
        save_model(model, None, tmp_path)
        found = verify_reload(model, tmp_path, samples(kind), process)
    assert found.difference <= found.allowed
    assert found.loader == ("transformers" if is_stock(model) else "prunepath")
    assert found.samples == 2


def test_a_fresh_process_that_cannot_load(tmp_path: Path) -> None:
    model = uneven("bert-classifier")
    save_model(model, None, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    message = "not load in a fresh process with prunepath: .*[Hh]eader.* Nothing was kept"
    with (
        FreshProcess(stock=False) as process,
        pytest.raises(ExactnessError, match=message),
    ):
        verify_reload(model, tmp_path, samples("bert-classifier"), process)


def test_a_fresh_process_that_is_not_needed_ends() -> None:
    with pytest.raises(KeyboardInterrupt), FreshProcess(stock=True) as process:
        raise KeyboardInterrupt
    assert process.ended


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
    request = json.dumps([name, str(tmp_path), str(tmp_path / "inputs"), str(written)])
    readback.main("prunepath", threads, io.StringIO(request + "\n"))
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


@dataclass
class Changed:
    """A process whose answers are those of the model in memory, changed."""

    change: Callable[[dict[str, torch.Tensor]], Any]
    loader: str = "transformers"

    def answers(self, model: Any, folder: Path, given: Samples) -> dict[str, torch.Tensor]:
        found = readback.answers(model, given.inputs)
        self.change(found)
        return found


def compare(
    kind: str, model: Any, change: Callable[[dict[str, torch.Tensor]], Any]
) -> verify.Verification:
    process: Any = Changed(change)
    return verify_reload(model, Path("nowhere"), samples(kind), process)


def test_differences_are_named_and_measured() -> None:
    model = KINDS["clip"].build()
    with pytest.raises(ExactnessError, match=r"differs .* by 0.5 in its text_embeds .allowed: 1e-"):
        compare("clip", model, lambda found: found["text_embeds"].add_(0.5))
    with pytest.raises(ExactnessError, match="by nan in its text_embeds"):
        compare("clip", model, lambda found: found["text_embeds"].fill_(torch.nan))
    with pytest.raises(ExactnessError, match=r"answers text_embeds of shape .1, 8. where the one"):
        compare("clip", model, lambda found: found.update(text_embeds=found["text_embeds"][:1]))
    with pytest.raises(ExactnessError, match="read back in a fresh process with transformers, ans"):
        compare("clip", model, lambda found: found.pop("text_embeds"))


def test_rounding_is_allowed_in_proportion() -> None:
    model = KINDS["vit"].build()
    with torch.no_grad():
        model.classifier.weight.mul_(1e4)
    found = compare("vit", model, lambda found: found["logits"].add_(1e-3))
    assert found.difference == pytest.approx(1e-3, rel=0.3)
    assert found.allowed > found.difference


def test_equal_infinities_are_equal() -> None:
    model = KINDS["vit"].build()
    with torch.no_grad():
        model.classifier.bias[0] = -torch.inf
    assert compare("vit", model, lambda found: None).difference == 0.0
