"""Load a cut model: what transformers' classes do, with ours registered first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["load"]


def load(source: str | Path, **options: Any) -> Any:
    """Load a model that `extract` wrote, of any layout, task and architecture.

    Args:
        source: its folder or Hub id.
        options: passed to `from_pretrained` (dtype, device_map, revision).

    Returns:
        The model, in evaluation mode, of the class it was cut from or a subclass of it.

    Raises:
        ModelError: it cannot be loaded.

    Example:
        >>> import prunepath
        >>> model = prunepath.load("small")  # doctest: +SKIP
    """
    from prunepath.checkpoint.loading import load_located
    from prunepath.checkpoint.locate import locate
    from prunepath.checkpoint.source import check_placement

    dtype, device = options.pop("dtype", "auto"), options.pop("device", None)
    check_placement(dtype, device)
    model = load_located(locate(source, **options), dtype=dtype)
    if device is not None:
        model.to(device)
    return model.eval()
