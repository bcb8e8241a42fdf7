"""Write docs/families.md from the tables: family x unit kind, and what is refused and why.

Run as `python tools/families_page.py` in the folder of the project; a test compares the page with
what the code says.
"""

from __future__ import annotations

from pathlib import Path

from prunepath.structure.families import FAMILIES, Family

KINDS = {
    "ffn_channel": "FFN channel",
    "expert_channel": "expert channel",
    "expert": "expert",
    "qk_coordinate": "QK coordinate",
    "qk_plain": "QK outside the rotary part",
    "vo_coordinate": "VO coordinate",
    "head": "head",
    "query_head": "query head",
    "kv_group": "KV group",
}
PAGE = Path("docs/families.md")
INTRODUCTION = """# Families

Generated from the tables by `python tools/families_page.py`; a test keeps it true.

**yes**: the cut runs at its own size in the model's own code or in a compact module of ours, so it
saves its share of attention, too. **filled**: the weights are cut, and their small products are
written into zeros at the widths the model's code expects; parameters, bytes and the work of the
projections fall, the work between them does not. **refused**: not cut where the reason applies.
Every row is tested on random models of its types: gated equals cut within 1e-5, counted
parameters equal the saved ones, counted MACs those of torch's counter. On your own model every
group is proven again before a search starts. Architectures in no table are read by the names of
their modules, and only what proves exact is cut.

Sub-layers have no column: wherever a row says yes or filled for units whose outputs pass one linear
map, the attention or the FFN can also go whole (kinds `attention` and `ffn`), with all its weights,
in every family. Experts behind a router are the exception. Compact attention then runs nothing; of
attention in the model's own code one head of zeros goes on, or all heads where these are filled or
refused.
"""


MERGING = "Towers of images only; see [tokens.md](tokens.md). Others have no patches that merge."


def page() -> str:
    """The whole page."""
    kinds = list(KINDS)
    head = "| family | types | " + " | ".join(KINDS[kind] for kind in kinds) + " |"
    lines = [INTRODUCTION, head, "|---" * (len(kinds) + 2) + "|"]
    reasons: list[str] = []
    for name in sorted(FAMILIES):
        family = FAMILIES[name]
        cells = [_cell(family, kind) for kind in kinds]
        types = ", ".join(family.model_types)
        lines.append(f"| {family.name} | {types} | " + " | ".join(cells) + " |")
        reasons += _reasons(family)
    lines += ["", "## What is refused, and why", "", *reasons, ""]
    lines += ["## Whose tokens merge at run time", "", MERGING, "", *_merging(), ""]
    return "\n".join(lines)


def _cell(family: Family, kind: str) -> str:
    words: list[str] = []
    for stack in family.stacks:
        for place in stack.places:
            for found in place.kinds:
                if found.name != kind:
                    continue
                own = set(found.unit.split()) - {found.tied}
                fits = bool(place.runtime) or own <= set(place.native)
                words.append("yes" if fits else "filled")
                if any(kind in kinds for kinds, _ in place.refuse.values()):
                    words.append("refused")
    return " / ".join(dict.fromkeys(sorted(words, reverse=True))) or "-"


def _merging() -> list[str]:
    found: dict[str, None] = {}
    for name in sorted(FAMILIES):
        for stack in FAMILIES[name].stacks:
            if isinstance(stack.merging, str):
                if stack.merging:
                    found[f"- {FAMILIES[name].name}: never; {stack.merging}"] = None
                continue
            but = [f"not where `{flag}`: {why}" for flag, why in stack.merging.refuse.items()]
            found[f"- {FAMILIES[name].name}: " + "; ".join(but or ["yes"])] = None
    return list(found)


def _reasons(family: Family) -> list[str]:
    found: dict[str, None] = {}
    for stack in family.stacks:
        for module, why in stack.stays.items():
            found[f"- {family.name}: `{module}`: {why}"] = None
        for place in stack.places:
            for module, (kinds, why) in place.refuse.items():
                found[f"- {family.name}: {', '.join(kinds)} where there is `{module}`: {why}"] = (
                    None
                )
    return list(found)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
