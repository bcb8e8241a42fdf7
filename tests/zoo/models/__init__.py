"""All models of the zoo: one line a model, in the file of its kind."""

from __future__ import annotations

import importlib
import pkgutil

from tests.zoo.build import Case

CASES: dict[str, Case] = {}
for _found in sorted(pkgutil.iter_modules(__path__), key=lambda item: item.name):
    CASES.update(importlib.import_module(f"{__name__}.{_found.name}").CASES)
