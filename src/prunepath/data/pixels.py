"""Images -> pixel values, exactly as the model's own `preprocessor_config.json` says.

The work is done by the image processor of transformers that the settings name, in its Pillow
version: it needs no torchvision, and knows the defaults of old files and the habits of each family.

Shapes: C channels, H and W height and width after preparation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from prunepath.errors import DataError
from prunepath.extras import require_extra

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IGNORED", "Preparer", "open_preparer", "vision_config"]

IGNORED = -1
"""Class of a mask's pixels that do not count."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_NEAREST = 0
# What data sets write where a pixel belongs to no class.
_VOID = 255


class Preparer:
    """Turns images, and masks over them, into what one model takes.

    Args:
        processor: an image processor of transformers; None where the model has no settings, so
            that only finished tensors can be taken.
        channels: C.
        classes: how many classes a mask may hold.
        model_id: what to call the model in messages.
    """

    def __init__(self, processor: Any, channels: int, classes: int, model_id: str) -> None:
        self._processor = processor
        self._mode = _MODES.get(channels, "RGB")
        self._classes = classes
        self._model_id = model_id

    @property
    def pads(self) -> bool:
        """Whether the model is told by a `pixel_mask` where an image ends."""
        return "pixel_mask" in getattr(self._processor, "model_input_names", ())

    def __call__(self, image: Any, name: str) -> Tensor:
        """Prepare one image.

        Args:
            image: a Pillow image, or a tensor (C, H, W) that is taken as it is.
            name: what to call it in messages.

        Returns:
            (C, H, W), float32.

        Raises:
            DataError: the model has no settings, or the image cannot be prepared.
        """
        import torch

        if isinstance(image, torch.Tensor):
            if image.ndim != 3:
                raise DataError(
                    f"{name} is a tensor of shape {tuple(image.shape)}; give pixel values of shape "
                    "(channels, height, width), or Pillow images"
                )
            return image.detach().to("cpu", torch.float32)
        return torch.from_numpy(self._run(image.convert(self._mode), name)).float()

    def mask(self, image: Any, name: str) -> Tensor:
        """Prepare a mask in the way its image is prepared.

        Args:
            image: a Pillow image whose pixels are class ids, or an integer tensor (H, W) that is
                taken as it is.
            name: what to call it in messages.

        Returns:
            Class indices (H, W), int64; `IGNORED` where the mask says nothing (255, what
            `do_reduce_labels` takes away, and padding).

        Raises:
            DataError: the mask holds colours, or classes the model does not have.
        """
        import numpy as np
        import torch
        from PIL import Image

        if isinstance(image, torch.Tensor):
            ids = image.long()
        else:
            found = np.array(image).astype(np.int64)
            if found.ndim != 2:
                raise DataError(
                    f"the mask {name} holds colours (mode {image.mode}); give images of one "
                    "channel whose values are class ids"
                )
            # Two bytes of each id, 0 kept for what the processor pads, travel as colours.
            planes = np.stack([(found + 1) & 255, (found + 1) >> 8, 0 * found], axis=-1)
            steps = {"do_rescale": False, "do_normalize": False, "resample": _NEAREST}
            run = self._run(Image.fromarray(planes.astype(np.uint8)), name, **steps)
            low, high = torch.from_numpy(run[:2].astype(np.int64))
            ids = low + 256 * high - 1
        return self._classes_of(ids, name)

    def _classes_of(self, ids: Tensor, name: str) -> Tensor:
        if getattr(self._processor, "do_reduce_labels", False):
            ids = ids.where(ids != _VOID, 0) - 1
        elif self._classes <= _VOID:
            ids = ids.where(ids != _VOID, IGNORED)
        ids = ids.where(ids >= 0, IGNORED)
        if int(ids.max()) >= self._classes:
            raise DataError(
                f"the mask {name} holds class {int(ids.max())}, but the model has "
                f"{self._classes} classes, counted from 0; give masks with the model's class ids"
            )
        return ids

    def _run(self, image: Any, name: str, **steps: Any) -> Any:
        if self._processor is None:
            raise DataError(
                f"'{self._model_id}' has no preprocessor_config.json, so how an image becomes "
                "pixel values is not known; put the file beside its weights, or give tensors of "
                "finished pixel values"
            )
        try:
            found = self._processor(image, return_tensors="np", **steps)["pixel_values"][0]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"the image processor of '{self._model_id}' refuses {name}: {error}; check "
                "preprocessor_config.json"
            ) from error
        if found.ndim != 3:
            raise DataError(
                f"the image processor of '{self._model_id}' gives pixel values of shape "
                f"{found.shape} for one image; give tensors of shape (channels, height, width)"
            )
        return found


def open_preparer(opened: Any) -> Preparer:
    """The preparation an opened model's images need.

    Args:
        opened: an opened model (`checkpoint.source.OpenedModel`).

    Raises:
        DataError: the settings name an image processor that transformers has no Pillow version of.
        MissingExtraError: Pillow is not installed.
    """
    require_extra("PIL", "vision", "reading images")
    config = opened.model.config
    settings = opened.image_settings
    processor = None if settings is None else _processor(settings, config, opened.model_id)
    channels = getattr(vision_config(config), "num_channels", 3)
    classes = int(getattr(config, "num_labels", 0) or 0)
    return Preparer(processor, channels, classes, opened.model_id)


def vision_config(config: Any) -> Any:
    """The part of a config that describes what looks at pixels; itself where there is no part."""
    for name in ("vision_config", "backbone_config"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    return config


def _processor(settings: Mapping[str, Any], config: Any, model_id: str) -> Any:
    import transformers

    # Newer folders keep the settings of all their parts in one file.
    settings = settings.get("image_processor", settings)
    for name in _class_names(settings, config):
        found = getattr(transformers, name, None)
        if found is not None:
            return found.from_dict(dict(settings))
    named = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    raise DataError(
        f"transformers has no Pillow version of the image processor of '{model_id}' "
        f"({named or 'which its preprocessor_config.json does not name'}); give tensors of "
        "finished pixel values"
    )


def _class_names(settings: Mapping[str, Any], config: Any) -> Iterator[str]:
    """Names of Pillow image processors, the one the settings name first."""
    for key in ("image_processor_type", "feature_extractor_type"):
        if settings.get(key):
            base = str(settings[key]).removesuffix("Fast").removesuffix("Pil")
            yield base.replace("FeatureExtractor", "ImageProcessor") + "Pil"
            return
    auto = import_module("transformers.models.auto.image_processing_auto")
    for cls in type(config).__mro__:  # a cut model's config derives from the one it was cut from
        known = auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(getattr(cls, "model_type", None), {})
        if known.get("pil"):
            yield str(known["pil"])
