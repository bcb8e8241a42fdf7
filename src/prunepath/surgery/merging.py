"""Layers that merge tokens between their attention and their FFN; the model's own modules run.

A layer gets a subclass of its own class, with a forward that strings its modules together as the
family table lists them: nothing is copied, and before anything is changed the same string, without
merging, must give the layer's own answer bit for bit. What was merged travels with the tensor that
goes from layer to layer, not in the model, so that threads and recomputed layers do not mix it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunepath.errors import ModelError, RequestError
from prunepath.structure.families import Family
from prunepath.structure.families.portable import family_from_dict
from prunepath.structure.merging import FoundMerging, find_merging, key_width
from prunepath.structure.tokens import TokenSchedule, TokenSite
from prunepath.structure.units import Structure
from prunepath.surgery.record import record_tokens_
from prunepath.surgery.tokens import Merged, match, merge

__all__ = ["install_merging_", "merge_tokens_", "merged_so_far", "merging", "read_site"]

_ADDITIVE = ("eager", "sdpa")
_TRAVELS_AS = "_prunepath_merged"  # an attribute of the tensor between two layers
_KEYS: ContextVar[list[Tensor] | None] = ContextVar("prunepath_keys", default=None)


@dataclass(frozen=True)
class _Block:
    """What one layer needs to know.

    Args:
        attention, ffn, keys: see `families.table.Merging`.
        key_width, protected: see `TokenSite`.
        count: tokens that go here.
        merged: whether some went before.
        last: whether all tokens must be back behind it.
    """

    attention: tuple[str, ...]
    ffn: tuple[str, ...]
    keys: str
    key_width: int
    protected: int
    count: int = 0
    merged: bool = False
    last: bool = False


class _Merging:
    """Mixed into the class of a layer; see the module's words."""

    merging: _Block

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """The layer of the class it was mixed into, with fewer tokens behind its attention."""
        layer: Any = self
        return _run_block(layer, self.merging, hidden_states, attention_mask, kwargs)


_MADE: dict[type[nn.Module], type[nn.Module]] = {}


def merge_tokens_(model: nn.Module, structure: Structure, schedule: TokenSchedule) -> None:
    """Let a model merge tokens from now on, and write that into its config.

    Args:
        model: a dense or cut model; its layers and its config are changed.
        structure: the dense model's structure.
        schedule: how many tokens go in every block; where none goes at all, nothing is changed.

    Raises:
        RequestError: its tokens cannot merge.
    """
    if any(schedule.dropped):
        install_merging_(model, schedule, [family_from_dict(table) for table in structure.tables])
        record_tokens_(model, structure, schedule)


def install_merging_(
    model: nn.Module, schedule: TokenSchedule, tables: Sequence[Family] = ()
) -> None:
    """Change the layers alone, from the first that merges to the last of all.

    Raises:
        RequestError: its tokens cannot merge.
        ModelError: the schedule was made for another list of layers.
    """
    _install_(model, schedule, find_merging(model, tables))


def _install_(
    model: nn.Module, schedule: TokenSchedule, found: FoundMerging
) -> list[RemovableHandle]:
    """The same; returns what takes the hooks off again."""
    if found.stack != schedule.site.stack or len(found.layers) != schedule.site.num_layers:
        raise ModelError(
            f"the token schedule is for {schedule.site.num_layers} layers at "
            f"'{schedule.site.stack}', and this model has {len(found.layers)} at '{found.stack}'; "
            "config.json was edited, or the model is another one"
        )
    merged, hooks = False, []
    for index, (path, count) in enumerate(zip(found.layers, schedule.dropped, strict=True)):
        layer: Any = model.get_submodule(path)
        last = index == len(found.layers) - 1
        if merged or count:
            base = type(layer)
            if base not in _MADE:
                _MADE[base] = type(base.__name__, (_Merging, base), {"__module__": __name__})
            layer.__class__ = _MADE[base]
            layer.merging = _block(
                found, schedule.site.key_width, count=count, merged=merged, last=last
            )
        if count:
            keys = layer.get_submodule(found.merging.keys)
            hooks.append(keys.register_forward_hook(_keep_keys))
            merged = True
    return hooks


@contextmanager
def merging(
    model: nn.Module, schedule: TokenSchedule, tables: Sequence[Family] = ()
) -> Iterator[None]:
    """Let a model merge tokens inside the block; afterwards its layers are what they were.

    Args:
        model: a dense model.
        schedule: how many tokens go in every block.
        tables: family tables that count beside the registered ones.

    Raises:
        RequestError, ModelError: see `install_merging_`.
    """
    found = find_merging(model, tables)
    layers: dict[Any, type[nn.Module]] = {
        layer: type(layer) for layer in map(model.get_submodule, found.layers)
    }
    hooks: list[RemovableHandle] = []
    try:
        hooks = _install_(model, schedule, found)
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, base in layers.items():
            if type(layer) is not base:
                layer.__class__ = base
                del layer.merging


def merged_so_far(hidden: Tensor) -> Merged | None:
    """What was merged on the way to a layer that is given this tensor; None: nothing."""
    merged = getattr(hidden, _TRAVELS_AS, None)
    return merged if isinstance(merged, Merged) else None


def read_site(
    model: nn.Module, run: Callable[[], object], tables: Sequence[Family] = ()
) -> TokenSite:
    """Where a model's tokens can merge; proven on the model before anything is changed.

    Args:
        model: the dense model.
        run: runs it once on random samples.
        tables: family tables that count beside the registered ones.

    Returns:
        The list of layers with the number of tokens that enter it.

    Raises:
        RequestError: its tokens cannot merge.
        ModelError: the table does not describe its layers.
    """
    found = find_merging(model, tables)
    width = key_width(model, found, tables)
    calls: dict[str, tuple[Tensor, Tensor | None, dict[str, Any], Tensor]] = {}
    with ExitStack() as stack, torch.no_grad():
        for path in found.layers:

            def keep(_: Any, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
                given = {**dict(zip(("hidden_states", "attention_mask"), args)), **kwargs}  # noqa: B905
                hidden, mask = given.pop("hidden_states"), given.pop("attention_mask", None)
                calls.setdefault(path, (hidden, mask, given, output))

            layer = model.get_submodule(path)
            stack.callback(layer.register_forward_hook(keep, with_kwargs=True).remove)
        run()
        for path in found.layers:
            hidden, mask, kwargs, output = calls[path]
            if mask is not None:
                raise RequestError(
                    f"token merging was asked for, and the attention of '{path}' is given a mask "
                    "over patches, which merged tokens have no place in; leave the token share out"
                )
            own = _run_block(model.get_submodule(path), _block(found, width), hidden, None, kwargs)
            if not isinstance(output, Tensor) or not torch.equal(own, output):
                raise ModelError(
                    f"the family table's words about merging do not describe '{path}': its own "
                    "modules in that order do not give the layer's answer; correct `merging` in "
                    "the table"
                )
    return TokenSite(
        stack=found.stack,
        num_layers=len(found.layers),
        tokens=int(calls[found.layers[0]][0].shape[1]),
        protected=found.protected,
        key_width=width,
    )


def _block(found: FoundMerging, width: int, **state: Any) -> _Block:
    table = found.merging
    return _Block(table.attention, table.ffn, table.keys, width, found.protected, **state)


def _run_block(
    layer: nn.Module, block: _Block, hidden: Tensor, mask: Tensor | None, kwargs: Mapping[str, Any]
) -> Tensor:
    merged = _merged_before(hidden, block)
    if merged is not None:
        mask = _bias(layer, block, merged, hidden, mask)
    keys: list[Tensor] = []
    token = _KEYS.set(keys)
    try:
        added = _through(layer, block.attention, hidden, block.keys, mask, kwargs)
    finally:
        _KEYS.reset(token)
    hidden = added + hidden
    tokens = hidden.shape[1]
    # An image smaller than the schedule was made for has fewer tokens to give.
    count = min(block.count, max(0, tokens - block.protected) // 2)
    if count:
        if mask is not None and merged is None:
            raise _masked(layer)
        before = Merged.nothing(hidden) if merged is None else merged
        place = match(
            _only(keys), key_width=block.key_width, protected=block.protected, count=count
        )
        hidden, merged = merge(hidden, before, place, count)
    hidden = _through(layer, block.ffn, hidden) + hidden
    if merged is None:
        return hidden
    if block.last:
        return merged.spread(hidden)
    setattr(hidden, _TRAVELS_AS, merged)
    return hidden


def _through(
    layer: nn.Module,
    names: Sequence[str],
    hidden: Tensor,
    keys: str = "",
    mask: Tensor | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Tensor:
    """What a branch of a layer makes of the residual stream."""
    for name in names:
        part = getattr(layer, name)
        if not isinstance(part, nn.Module):  # the factor of a layer scale
            hidden = part * hidden
        elif keys.startswith(f"{name}."):
            answer = part(hidden, attention_mask=mask, **(kwargs or {}))
            hidden = answer[0] if isinstance(answer, tuple) else answer
        else:
            hidden = part(hidden)
    return hidden


def _merged_before(hidden: Tensor, block: _Block) -> Merged | None:
    merged = merged_so_far(hidden)
    if block.merged and merged is None and _merges_still(hidden, block):
        raise ModelError(
            "this model merges tokens, and on the way from one layer to the next it was lost which "
            "(something between the layers makes new tensors: a model spread over devices, or "
            "re-entrant checkpointing); run it on one device, checkpoint with use_reentrant=False"
        )
    return merged


def _merges_still(hidden: Tensor, block: _Block) -> bool:
    """Whether earlier layers had anything to merge: two free tokens at least."""
    return hidden.shape[1] - block.protected > 1


def _bias(
    layer: nn.Module, block: _Block, merged: Merged, hidden: Tensor, mask: Tensor | None
) -> Tensor:
    """Log sizes, for kernels that add a mask to the logits."""
    if mask is not None:
        raise _masked(layer)
    attends: Any = layer.get_submodule(block.keys.rpartition(".")[0])
    kernel = getattr(getattr(attends, "config", None), "_attn_implementation", "eager") or "eager"
    if kernel not in _ADDITIVE:
        raise RequestError(
            f"this model merges tokens, whose sizes are added to the attention logits, and the "
            f"attention '{kernel}' adds nothing; use model.set_attn_implementation('sdpa')"
        )
    return merged.bias(hidden.dtype)


def _masked(layer: nn.Module) -> RequestError:
    return RequestError(
        f"this model merges tokens, and a {type(layer).__name__} was given an attention mask over "
        "them; leave the mask out"
    )


def _keep_keys(_: nn.Module, __: Any, output: Tensor) -> None:
    """A forward hook on the keys of a layer that merges."""
    found = _KEYS.get()
    if found is not None:
        found.append(output)


def _only(keys: list[Tensor]) -> Tensor:
    if len(keys) != 1:
        raise ModelError(
            f"this model merges tokens by their attention keys, and saw {len(keys)} of them in one "
            "layer where one was expected; its key projection was replaced after it was loaded"
        )
    return keys[0]
