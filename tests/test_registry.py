"""The registry: lazy, open to third parties, strict about names."""

from __future__ import annotations

import importlib.metadata

import pytest

from prunepath import registry
from prunepath.errors import PrunepathError, RequestError
from prunepath.registry import Registry


@pytest.fixture
def methods() -> Registry[object]:
    made: Registry[object] = Registry("method", "prunepath.test_methods")
    made.register("magnitude", len)
    made.register("fisher", "math:sqrt")
    return made


def test_lookup_returns_the_object(methods: Registry[object]) -> None:
    assert methods["magnitude"] is len


def test_lazy_target_is_imported_on_first_use(methods: Registry[object]) -> None:
    import math

    assert methods["fisher"] is math.sqrt
    assert methods["fisher"] is math.sqrt


def test_unknown_name_suggests_the_nearest(methods: Registry[object]) -> None:
    message = "unknown method 'fischer'; did you mean 'fisher'[?] Known: fisher, magnitude"
    with pytest.raises(RequestError, match=message):
        methods["fischer"]


def test_unknown_name_without_a_near_one_lists_what_there_is(methods: Registry[object]) -> None:
    with pytest.raises(RequestError, match=r"unknown method 'xyz'\. Known: fisher, magnitude"):
        methods["xyz"]


def test_a_taken_name_is_refused(methods: Registry[object]) -> None:
    with pytest.raises(RequestError, match="'magnitude' is already registered; choose another"):
        methods.register("magnitude", sum)
    methods.register("magnitude", len)  # the same again is no collision


def test_iteration_is_sorted_and_membership_works(methods: Registry[object]) -> None:
    assert list(methods) == ["fisher", "magnitude"]
    assert "fisher" in methods
    assert "spp" not in methods


def test_entry_points_of_third_parties_are_found(
    methods: Registry[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = "prunepath.test_methods"
    theirs = importlib.metadata.EntryPoint("theirs", "math:floor", group)
    ours = importlib.metadata.EntryPoint("magnitude", "math:ceil", group)

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        return [point for point in (theirs, ours) if point.group == group]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    import math

    assert methods["theirs"] is math.floor
    assert methods["magnitude"] is len, "an entry point may not replace a built-in"


def test_all_errors_are_value_errors() -> None:
    assert issubclass(RequestError, PrunepathError)
    assert issubclass(PrunepathError, ValueError)
