"""The pages: their examples run, their links lead somewhere, their script fills the README."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import prunepath
from prunepath.api.search import search
from tests.api.fixtures import SEARCH, save_tiny

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def example(name: str) -> str:
    """The code of a marked example in CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an example registers is forgotten after the test."""
    from prunepath.methods.method import METHODS
    from prunepath.structure.families import FAMILIES
    from prunepath.tasks import TASKS

    for registry in (FAMILIES, METHODS, TASKS):
        monkeypatch.setattr(registry, "_targets", dict(registry._targets))


@pytest.mark.usefixtures("no_fresh_process", "registries")
def test_the_family_of_the_guide_works(
    tmp_path: Path, tiny_tokenizer: Any, text_file: Path
) -> None:
    from prunepath.structure.families import FAMILIES

    exec(example("family"), {})
    layers = [[["global", "local"], 1]]
    model = save_tiny(tmp_path / "model", tiny_tokenizer, "GPTNeo", attention_types=layers)
    search(model, output=tmp_path / "path", data=text_file, **SEARCH)
    found = prunepath.inspect(tmp_path / "path")
    kinds = {kind.kind: kind.runs_natively for kind in found.kinds}
    assert kinds == {
        "qk_coordinate": False,
        "vo_coordinate": False,
        "head": True,
        "attention": False,
        "ffn_channel": True,
        "ffn": False,
    }
    linears = {"q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"}
    left = {item.module.rpartition(".")[2] for item in found.structure.left_alone}
    assert not linears & left
    made = [
        prunepath.extract(tmp_path / "path", output=tmp_path / layout, ratio=0.2, layout=layout)
        for layout in ("uniform", "per-layer")
    ]
    del FAMILIES._targets["gpt_neo"]  # as where nobody registered it
    for each in made:
        assert each.allocation.reached <= each.allocation.limit
        assert each.folder is not None
        again = prunepath.load(each.folder)
        assert again.num_parameters() == each.allocation.cost.params


@pytest.mark.usefixtures("no_fresh_process", "registries")
def test_the_task_of_the_guide_works(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    from tests.tasks.tiny import SHAPE, WORDS, word_tokenizer

    exec(example("task"), {"__name__": __name__})
    model, name = tmp_path / "model", "first-token-embedding"
    BertModel(BertConfig(**SHAPE)).save_pretrained(model)
    word_tokenizer().save_pretrained(model)
    rows = [
        {"sentence1": WORDS[i % 7], "sentence2": " ".join(WORDS[: 2 + i % 5]), "score": i % 6}
        for i in range(20)
    ]
    counts = {**SEARCH, "window": None}
    search(model, output=tmp_path / "path", data=rows, task=name, **counts)
    prunepath.extract(tmp_path / "path", output=tmp_path / "small", ratio=0.2, multiple=1, floor=1)
    found = prunepath.evaluate(tmp_path / "small", data=rows, task=name, speed=False)
    assert (found.task, found.metric.name, found.metric.samples) == (name, "spearman", 20)
    # Nothing asks for it by its class.
    usual = prunepath.evaluate(model, data=rows, speed=False)
    assert usual.task == "sentence-embedding"


@pytest.mark.usefixtures("registries")
def test_the_method_of_the_guide_works(tmp_path: Path, model_folder: Path, text_file: Path) -> None:
    # dataclasses look their module up.
    exec(example("method"), {"__name__": __name__})
    wish: dict[str, Any] = {"data": text_file, "method": "fisher-power", **SEARCH}
    one = search(model_folder, output=tmp_path / "one", config={"exponent": 1.0}, **wish)
    half = search(model_folder, output=tmp_path / "half", **wish)
    assert half.provenance.method_config == {"exponent": 0.5}
    name = one.structure.groups[0].name
    assert one.damage[name] ** 0.5 == pytest.approx(half.damage[name], rel=1e-4)


def test_the_counts_of_the_tasks_are_those_of_the_code() -> None:
    from prunepath.tasks import TASKS

    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    written = page.partition("<!-- counts -->\n")[2].partition("<!-- /counts -->")[0]
    rows = []
    for name in TASKS:
        usual = TASKS[name].counts
        evaluated = "all" if usual.evaluation is None else usual.evaluation
        cells = (usual.windows, usual.refit, usual.holdout, usual.moments, evaluated, usual.batch)
        rows.append(f"| `{name}` | {' | '.join(map(str, cells))} |")
    assert written.splitlines()[2:] == rows, "bring the table in docs/tasks.md up to date"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    # The curve is drawn by the demo.
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target and "curve.png" not in target]
    generated = {"docs/benchmarks.md", "benchmarks.md"}
    missing = [t for t in local if t not in generated and not (page.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_the_pages_name_exists(page: Path) -> None:
    import typer

    from prunepath.cli.main import app

    group: Any = typer.main.get_command(app)
    known = {
        flag
        for command in (group, *group.commands.values())
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help", "--index-url"}
    named = set(
        re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*(?![\w-])", page.read_text(encoding="utf-8"))
    )
    assert named <= known


def test_the_readme_is_filled_between_its_marks(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("update", ROOT / "tools" / "update_readme.py")
    assert spec is not None
    assert spec.loader is not None
    update: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(update)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    once = update.filled(readme, "| a |\n|---|\n")
    assert "<!-- demo-table -->\n| a |\n|---|\n<!-- /demo-table -->" in once
    assert update.filled(once, "| a |\n|---|\n") == once
    with pytest.raises(ValueError, match="lacks the marks"):
        update.filled("no marks", "")
    with pytest.raises(SystemExit, match="run `make demo` first"):
        update.main(tmp_path)
