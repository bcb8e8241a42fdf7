"""The measuring rules in the verbs: budgets, seeds, figures, recipes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import prunepath
from prunepath.allocation.allocate import allocate
from prunepath.allocation.budget import Budget
from prunepath.allocation.rules import MEASURING, rule_settings
from prunepath.allocation.steps import StepOptions
from prunepath.api.choosing import Chooser
from prunepath.api.recipes import cost_class, find_recipe, needs, settled
from prunepath.api.search import search
from prunepath.api.workshop import Workshop
from prunepath.errors import BudgetError, NumericsError, PathFileError, RequestError
from prunepath.statistics.gated_model import GatedModel
from prunepath.surgery.cut import cut
from tests.api.fixtures import SEARCH
from tests.rules.models import MODELS, Tiny, ready

SMALL: dict[str, dict[str, Any]] = {
    "curves": {"levels": 3},
    "evolution": {"iterations": 2, "generations": 2, "offspring": 4},
    "shares": {"spread": 0.3},
}
every_rule = pytest.mark.parametrize("rule", MEASURING)


def options_for(rule: str, **other: Any) -> StepOptions:
    return StepOptions(rule=rule, rule_set=SMALL[rule], multiple=4, floor=4, **other)


def chooser_of(tiny: Tiny, options: StepOptions) -> Chooser:
    supplies: Any = SimpleNamespace(refit=tiny.samples)
    return Chooser(tiny.model, tiny.path, tiny.task, supplies, options)


@every_rule
@pytest.mark.parametrize("metric", ["params", "macs", "memory"])
@pytest.mark.parametrize("name", MODELS)
def test_every_rule_meets_every_budget(name: str, metric: str, rule: str) -> None:
    tiny, options = ready(name), options_for(rule)
    chooser = chooser_of(tiny, options)
    for percent in (95, 85):
        try:
            found = allocate(
                tiny.path, Budget.parse(metric, f"{percent}%"), options, choose=chooser
            )
        except BudgetError:
            assert percent == 85, "a random embedding can be most of a tiny model"
            continue
        found.selection.validate(tiny.structure)
        assert found.reached <= found.limit
        figures = found.measured
        trial = GatedModel(tiny.model, tiny.structure, tiny.task, tiny.samples)
        count = 4 if rule == "evolution" else 2
        assert figures["distance"] == pytest.approx(
            trial.distance(found.selection, count), rel=1e-4
        )
        if rule == "evolution":
            assert figures["distance"] <= figures["distance by the order"]
        if rule == "curves":
            assert figures["sum of curves"] <= figures["sum of curves by the order"]
        order = allocate(tiny.path, Budget.parse(metric, f"{percent}%"), options_for_order())
        assert found.damage_kept["order"] == order.damage_kept["order"]
        assert set(found.damage_kept) == {"order", rule}


def options_for_order() -> StepOptions:
    return StepOptions(multiple=4, floor=4)


@every_rule
def test_the_same_seed_gives_the_same_model_and_nothing_is_removed_for_nothing(rule: str) -> None:
    tiny, options = ready("encoder"), options_for(rule)
    budget = Budget.from_ratio(0.3)
    first, again = (
        allocate(tiny.path, budget, options, choose=chooser_of(tiny, options)) for _ in range(2)
    )
    assert first.measured == again.measured
    for group in tiny.structure.groups:
        assert (first.selection.of(group) == again.selection.of(group)).all()
    whole = allocate(tiny.path, Budget.from_ratio(0), options, choose=chooser_of(tiny, options))
    assert all(whole.selection.of(group).all() for group in tiny.structure.groups)
    assert whole.measured == {}


def test_curves_are_measured_once_for_all_budgets() -> None:
    tiny, options = ready("vision"), options_for("curves")
    chooser = chooser_of(tiny, options)
    passes = [
        allocate(tiny.path, Budget.from_ratio(ratio), options, choose=chooser).measured[
            "forward passes"
        ]
        for ratio in (0.2, 0.3)
    ]
    assert passes[1] <= 4 < passes[0]


def test_the_worst_sample_decides_where_it_is_asked_for() -> None:
    tiny = ready("vision")
    mean, worst = (
        StepOptions(rule="curves", rule_set={"worst": flag, "samples": 0}, multiple=4, floor=4)
        for flag in (False, True)
    )
    sums = [
        allocate(tiny.path, Budget.from_ratio(0.3), each, choose=chooser_of(tiny, each)).measured
        for each in (mean, worst)
    ]
    assert sums[1]["sum of curves by the order"] > sums[0]["sum of curves by the order"]


def test_curves_of_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, options = ready("encoder"), options_for("curves")
    monkeypatch.setattr(GatedModel, "distance", lambda *_, **__: 0.0)
    with pytest.raises(NumericsError, match="no sub-layer moves the answers .* --rule order"):
        allocate(tiny.path, Budget.from_ratio(0.3), options, choose=chooser_of(tiny, options))


@every_rule
def test_extract_says_what_was_measured(
    rule: str, path_folder: Path, tmp_path: Path, no_fresh_process: None
) -> None:
    made = prunepath.extract(
        path_folder,
        output=tmp_path / "small",
        ratio=0.3,
        rule=rule,
        rule_set=SMALL[rule],
        refit="none",
    )
    found = made.allocation
    assert found.reached <= found.limit
    assert {"distance by the order", "distance", "forward passes"} <= set(found.measured)
    card = (tmp_path / "small" / "README.md").read_text()
    assert f"rule `{rule}`" in card
    by_order = found.measured["distance by the order"]
    assert f"- measured by the rule: distance by the order {by_order}, distance " in card
    shop = Workshop(path_folder, refit="none")
    shop.open()
    again = cut(shop.dense, shop.path.structure, found.selection)
    assert sum(p.numel() for p in again.parameters()) == found.cost.params
    assert sum(p.numel() for p in made.model.parameters()) == found.cost.params


def test_a_curve_follows_a_rule_and_a_repair_follows_it(
    path_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    wish: dict[str, Any] = {"points": [0.2], "data": text_file, "windows": 2, "window": 32}
    plain = prunepath.curve(path_folder, output=tmp_path, **wish)
    ruled = prunepath.curve(
        path_folder, output=tmp_path, rule="evolution", rule_set=SMALL["evolution"], **wish
    )
    assert [row.note for row in plain] == ["", "refit sequential"]
    assert [row.note for row in ruled] == ["", "rule evolution, refit sequential"]
    assert ruled[1].ratio >= 0.2


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"latency": "80%", "rule": "evolution"}, "measured latency does not; use --macs"),
        ({"ratio": 0.3, "rule": "curves", "layout": "uniform"}, "'uniform' keeps all layers alike"),
        ({"ratio": 0.3, "rule": "shares", "token_share": 0.5}, "merging some was asked for, too"),
        ({"ratio": 0.3, "rule": "curves", "rule_set": {"level": 3}}, "'curves' has no setting 'l"),
        ({"ratio": 0.3, "rule": "order", "rule_set": {"levels": 3}}, "'order' has no settings, a"),
        ({"ratio": 0.3, "rule": "curves", "rule_set": {"levels": 1}}, "it must be at least 2"),
        ({"ratio": 0.3, "rule": "evolution", "rule_set": {"stages": "4"}}, "write samples:surviv"),
        ({"ratio": 0.3, "rule": "evolution", "rule_set": {"step": 2.0}}, "step is 2; it is a part"),
        ({"ratio": 0.3, "rule": "evolution", "rule_set": {"offspring": 0}}, "must be at least 1"),
        ({"ratio": 0.3, "rule": "shares", "rule_set": {"epsilon": 0.0}}, "must be above 0"),
        ({"ratio": 0.3, "rule": "shares", "rule_set": {"spread": 0.0}}, "spread is 0; it must be"),
        ({"ratio": 0.3, "rule": "shares", "rule_set": {"loss": "x"}}, "unknown loss 'x' of the r"),
    ],
    ids=str,
)
def test_what_a_rule_cannot_do_is_refused(
    wish: dict[str, Any], match: str, path_folder: Path
) -> None:
    with pytest.raises(RequestError, match=match):
        prunepath.extract(path_folder, **wish)


def test_a_budget_out_of_reach_is_refused_before_the_model_is_loaded(
    path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workshop, "open", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(BudgetError, match="the smallest model this path can give has"):
        prunepath.extract(path_folder, params="1%", rule="curves")


@every_rule
def test_a_path_without_samples_says_what_to_do(
    rule: str, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    search(
        model_folder,
        output=tmp_path / "path",
        data=text_file,
        **{**SEARCH, "refit_windows": 0},
    )
    match = "kept no samples to measure selections on .*; search with some, or extract with --rule"
    with pytest.raises(PathFileError, match=match):
        prunepath.extract(tmp_path / "path", ratio=0.2, refit="none", rule=rule)
    path = prunepath.SolutionPath.from_pretrained(tmp_path / "path")
    object.__setattr__(path, "folder", None)
    with pytest.raises(PathFileError, match="this path was made in memory and has no statistics"):
        prunepath.extract(path, ratio=0.2, refit="none", rule=rule)


@pytest.mark.parametrize("name", ["tyr", "ecoflap", "rd", "laptop"])
def test_recipes_cut_as_their_papers_choose(
    name: str, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    recipe = find_recipe(name)
    assert (cost_class(recipe), needs(recipe)) == ("search", "samples")
    search(model_folder, output=tmp_path / "path", data=text_file, method=name, **SEARCH)
    made = prunepath.extract(tmp_path / "path", ratio=0.2)
    assert made.taken["rule"] == recipe.rule == made.allocation.options.rule
    assert made.allocation.reached <= made.allocation.limit
    assert made.allocation.measured
    if name == "laptop":
        assert made.allocation.options.kinds == ("attention", "ffn")


def test_a_rule_of_the_user_forgets_the_settings_of_the_recipe() -> None:
    recipe = replace(find_recipe("tyr"), rule_set={"generations": 2})
    options, taken = settled(recipe.extraction, {})
    assert options["rule_set"] == {"generations": 2} == taken["rule_set"]
    assert settled(recipe.extraction, {"rule": "curves"})[0]["rule_set"] == {}
    assert find_recipe("spp+curves").extraction == {"rule": "curves"}
    assert rule_settings("evolution", {"generations": 2}).to_dict()["generations"] == 2


@every_rule
def test_the_page_lists_every_setting_with_its_default(rule: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text(encoding="utf-8")
    rows = page.split(f"| *{rule}* ")[1].split("\n| *")[0].split("\n\n")[0]
    for name, value in rule_settings(rule, {}).to_dict().items():
        assert f"`{name}` | {str(value).lower()} |" in rows


def test_a_comparison_measures_by_the_rule_of_a_recipe(
    model_folder: Path, text_file: Path, tmp_path: Path, tiny_text: str
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Something else is said here, and never there. " * 60, encoding="utf-8")
    rows = prunepath.compare(
        model_folder,
        output=tmp_path / "table",
        methods=["magnitude", "rd"],
        ratios=[0.2],
        data=text_file,
        evaluation_data=other,
        evaluation_windows=2,
        **SEARCH,
    )
    by_name = {row.recipe: row for row in rows}
    assert set(by_name) == {"dense", "random", "magnitude", "rd"}
    assert by_name["rd"].ratio >= 0.2
    assert by_name["rd"].quality != by_name["magnitude"].quality


def test_a_recipe_shows_the_settings_of_its_rule(capsys: pytest.CaptureFixture[str]) -> None:
    from prunepath.cli.show_recipes import recipe_text

    recipe_text(find_recipe("tyr"))
    text = capsys.readouterr().out
    assert "settings of the rule evolution, for extract:" in text
    assert "--rule-set stages=1:3,4:1" in text
    recipe_text(find_recipe("fisher"))
    assert "--rule-set" not in capsys.readouterr().out
