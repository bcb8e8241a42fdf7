"""The same images seen again, a little differently: calibration data where there is too little.

Second moments of a layer's inputs need more rows than a few hundred images give. Mirrored and
cropped views of the same images show the model what other images of the kind would; no label is
needed, because the dense model's own answer to the view is what is matched.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunepath.data.image_files import Item
from prunepath.data.pixels import Preparer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["varied", "view"]

_AREA = (0.5, 1.0)
_ASPECT = (3 / 4, 4 / 3)


def varied(items: Sequence[Item], count: int, prepare: Preparer, seed: int) -> list[Tensor]:
    """Views of images, taking turns.

    Args:
        items: the images.
        count: how many views.
        prepare: the model's preparation.
        seed: same seed, same views.

    Returns:
        `count` prepared images (C, H, W).
    """
    draw = random.Random(seed)
    return [
        prepare(view(items[turn % len(items)].load(), draw), items[turn % len(items)].name)
        for turn in range(count)
    ]


def view(image: Any, draw: random.Random) -> Any:
    """A random crop of half to all of the area, mirrored every second time.

    Args:
        image: a Pillow image; of a tensor (C, H, W) only mirror images are taken.
        draw: source of randomness.
    """
    mirrored = draw.random() < 0.5
    if not hasattr(image, "crop"):
        return image.flip(-1) if mirrored else image
    from PIL import ImageOps

    width, height = image.size
    area, aspect = draw.uniform(*_AREA), draw.uniform(*_ASPECT)
    across = min(width, max(1, round((width * height * area * aspect) ** 0.5)))
    down = min(height, max(1, round((width * height * area / aspect) ** 0.5)))
    left, top = draw.randint(0, width - across), draw.randint(0, height - down)
    crop = image.crop((left, top, left + across, top + down))
    return ImageOps.mirror(crop) if mirrored else crop
