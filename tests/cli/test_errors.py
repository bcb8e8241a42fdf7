"""When things go wrong: one sentence on stderr, exit code 2, and nothing left behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prunepath.cli.main import app
from tests.api.fixtures import save_tiny


def fails(tmp_path: Path, *arguments: Any, code: int = 2) -> str:
    """The one line on stderr of a command that writes into a folder and fails."""
    parent = tmp_path / "outputs"
    parent.mkdir(exist_ok=True)
    words = [str(each) for each in (*arguments, "-o", parent / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.stdout == ""
    *notes, line = result.stderr.splitlines()
    assert not any(note.startswith(("Error", "Traceback")) for note in notes)
    assert list(parent.iterdir()) == [], "something was left behind"
    return line


def search_of(model: Any, text: Any, *more: Any) -> tuple[Any, ...]:
    return ("search", model, "--data", text, "--windows", 3, "--window", 32, "--quiet", *more)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (["--ratio", "1.3"], "Error: --ratio 1.3 is the fraction of block parameters to remove"),
        (["--params", "70"], "Error: --params 70 has no unit; did you mean 70% or 70M?"),
        (["--params", "900M"], "Error: the budget params 900M is above the dense model"),
        (["--params", "1%"], "Error: the budget params 1% allows"),
        (["--macs", "0%"], "Error: --macs 0% keeps that much of the dense model"),
        (["--memory", "5 parsec"], "Error: --memory 5 parsec has an unknown unit"),
        ([], "Error: exactly one budget is needed and none was given"),
        (["--params", "70%", "--ratio", "0.3"], "Error: exactly one budget is needed and params"),
    ],
    ids=" ".join,
)
def test_budgets(budget: list[str], message: str, tmp_path: Path, path_folder: Path) -> None:
    assert fails(tmp_path, "extract", path_folder, *budget).startswith(message)


def test_the_smallest_possible_size_is_named(tmp_path: Path, path_folder: Path) -> None:
    line = fails(tmp_path, "extract", path_folder, "--params", "1%")
    assert "the smallest model this path can give has" in line
    assert "ask for at least that, or lower --floor" in line


def test_an_unknown_model(tmp_path: Path, text_file: Path) -> None:
    line = fails(tmp_path, *search_of(tmp_path / "nowhere", text_file))
    assert line.startswith("Error: there is no model folder")


def test_an_unknown_family(tmp_path: Path, text_file: Path, tiny_tokenizer: Any) -> None:
    from transformers import CTRLConfig, CTRLLMHeadModel

    config = CTRLConfig(vocab_size=300, n_embd=16, dff=32, n_layer=1, n_head=2)
    CTRLLMHeadModel(config).save_pretrained(tmp_path / "ctrl")
    tiny_tokenizer.save_pretrained(tmp_path / "ctrl")
    line = fails(tmp_path, *search_of(tmp_path / "ctrl", text_file))
    assert line.startswith("Error: cannot search a model of type 'ctrl': no family table covers it")


def test_empty_and_too_short_data(tmp_path: Path, model_folder: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("  \n")
    assert fails(tmp_path, *search_of(model_folder, file)).startswith("Error: there is no text in")
    file.write_text("A few words.")
    line = fails(tmp_path, *search_of(model_folder, file))
    assert line.startswith("Error: 5 windows of 32 tokens need at least 160 tokens, but")


def test_nan_in_a_weight(tmp_path: Path, text_file: Path, tiny_tokenizer: Any) -> None:
    import torch

    from tests.conformance.families import tiny

    model = tiny("Llama", vocab_size=300)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    line = fails(tmp_path, *search_of(tmp_path / "model", text_file))
    assert line.startswith("Error: the weight 'lm_head.weight' holds NaN or infinity")


def test_other_weights(tmp_path: Path, path_folder: Path, tiny_tokenizer: Any) -> None:
    other = save_tiny(tmp_path / "other", tiny_tokenizer, num_hidden_layers=1)
    line = fails(tmp_path, "extract", path_folder, "--ratio", 0.2, "--model", other, "--quiet")
    assert line.startswith("Error: this path belongs to")


@pytest.mark.parametrize("change", ["truncated", "tampered"])
def test_a_damaged_path(change: str, tmp_path: Path, path_folder: Path) -> None:
    folder = tmp_path / "path"
    shutil.copytree(path_folder, folder)
    file = folder / "path.safetensors"
    blob = file.read_bytes()
    file.write_bytes(blob[:-9] if change == "truncated" else blob[:-9] + bytes(9))
    line = fails(tmp_path, "extract", folder, "--ratio", 0.2, "--quiet")
    assert line.startswith("Error: the path file")
    assert "search again or fetch it anew" in line


def test_missing_statistics(tmp_path: Path, path_folder: Path) -> None:
    (tmp_path / "path").mkdir()
    shutil.copy(path_folder / "path.safetensors", tmp_path / "path")
    line = fails(tmp_path, "extract", tmp_path / "path", "--ratio", 0.2, "--quiet")
    assert line.startswith("Error: the statistics file")
    assert line.endswith("search again, or extract with --refit none")


def test_a_full_disk(
    tmp_path: Path,
    model_folder: Path,
    path_folder: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    for words in (
        search_of(model_folder, text_file),
        ("extract", path_folder, "--ratio", 0.2, "--quiet"),
    ):
        line = fails(tmp_path, *words)
        assert line.startswith("Error: writing ")
        assert line.endswith(
            "but only 10 B are free there; free some space or choose another place"
        )


def test_a_folder_in_use(tmp_path: Path, path_folder: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("keep")
    result = CliRunner().invoke(
        app, ["extract", str(path_folder), "--ratio", "0.2", "-o", str(used), "--quiet"]
    )
    assert result.exit_code == 2
    assert "already exists and is not empty" in result.stderr
    assert "--overwrite" in result.stderr
    assert [item.name for item in used.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "sppp"], "Error: unknown method 'sppp'; did you mean 'spp'?"),
        (["--set", "round=4"], "Error: this method has no setting 'round'"),
        (["--set", "rounds"], "Error: --set rounds is not KEY=VALUE"),
        (["--set", "rounds=many"], "Error: rounds is "),
        (["--objective", "kll"], "Error: unknown objective 'kll'"),
        (["--device", "gpu"], "Error: cannot use the device 'gpu'"),
        (["--dtype", "float3"], "Error: unknown dtype 'float3'"),
        (["--tokenizer", "nowhere/at/all"], "Error: there is no tokenizer at 'nowhere/at/all'"),
    ],
    ids=" ".join,
)
def test_malformed_searches(
    more: list[str], message: str, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    assert fails(tmp_path, *search_of(model_folder, text_file, *more)).startswith(message)


def test_usage_errors_end_with_the_same_code(tmp_path: Path) -> None:
    for words in (["search"], ["extract", "path"], ["extract", "p", "--ratio", "x"], ["prune"]):
        assert CliRunner().invoke(app, words).exit_code == 2


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunepath.statistics import run

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "draw_backward", interrupt)
        words = [*search_of(model_folder, text_file), "-o", tmp_path / "path"]
        result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2
    assert result.stderr == (
        "Interrupted: run the same command again and it goes on where it stopped.\n"
    )
    assert not (tmp_path / "path").exists()
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
    assert [item.name for item in tmp_path.iterdir()] == ["path"]


def test_ctrl_c_in_an_extraction_leaves_nothing(
    tmp_path: Path, path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunepath.checkpoint import verify

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "verify_reload", interrupt)
    line = fails(tmp_path, "extract", path_folder, "--ratio", 0.2, "--quiet", code=2)
    assert line == "Interrupted: nothing was written."


def test_a_defect_of_ours_shows_its_traceback(
    path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunepath.structure import cost

    def defect(*_: Any, **__: Any) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr(cost, "cost_of", defect)
    result = CliRunner().invoke(app, ["inspect", str(path_folder)])
    assert isinstance(result.exception, AssertionError)
    assert result.exit_code == 1
