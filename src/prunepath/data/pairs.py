"""Images with captions -> samples of pixel values and tokens.

An image may have several captions; each pair is a sample, and the sample's label says which image
it is of. The first captions of all images come first, so that few batches hold an image twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from prunepath.data.image_batch import listed, read_batch
from prunepath.data.image_columns import pick_columns
from prunepath.data.image_files import Item, Items, Tree, decoded, open_tree
from prunepath.data.image_rows import open_rows
from prunepath.data.images import local_path
from prunepath.data.pixels import open_preparer
from prunepath.data.samples import Samples
from prunepath.data.table_files import file_rows
from prunepath.errors import DataError, RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.tasks.task import DataRequest

__all__ = ["pair_samples"]

CAPTION_COLUMNS = (
    *("caption", "captions", "text", "sentence", "sentences", "title", "description"),
    *("alt_text", "txt"),
)
_TABLES = frozenset({".csv", ".json", ".jsonl", ".ndjson", ".tsv"})
_METADATA = ("metadata.jsonl", "metadata.csv")
# Read beyond what is wanted of a stream, in place of what may be unreadable.
_SPARE = 64


def pair_samples(
    opened: Any, data: Any, request: DataRequest, *, full_width: bool = False
) -> Samples:
    """Read images with captions.

    Args:
        opened: an opened model (`checkpoint.source.OpenedModel`), with a tokenizer.
        data: one of
            a `.jsonl`, `.json`, `.csv` or `.tsv` file with a column of image paths, relative to
            the file, and one of captions; or a folder with such a `metadata.jsonl` (`.csv`);
            a folder or a .zip file of images, each beside a .txt file of the same name with one
            caption a line;
            an id of the `datasets` library, streamed, or one of its datasets;
            an iterable of pairs `(image, caption)` or of mappings.
        request: how much of it; `field` names the caption column, `window` limits the tokens.
        full_width: pad every caption to the model's full width and give no attention mask, as
            models expect that were trained so; otherwise to the longest caption.

    Returns:
        `pixel_values` (N, C, H, W), `input_ids` (N, T) and where there is padding to be known
        `attention_mask` (N, T); the labels (N,) are equal for captions of the same image.

    Raises:
        DataError: there are too few pairs, no captions, or the model has no tokenizer.
        RequestError: a split of something that has none.
        MissingExtraError: Pillow, or for a dataset id `datasets`, is not installed.
    """
    import torch

    prepare = open_preparer(opened)
    tokenizer = _tokenizer(opened)
    with _open_pairs(data, request) as source:
        pairs = _pairs(source, request)
        batch = read_batch(pairs, prepare, count=request.count, extra=request.extra)
    images, texts = zip(*(item.told for item in batch.items), strict=True)
    tokens = _tokenized(tokenizer, list(texts), opened.model.config, request.window, full_width)
    return Samples(
        inputs={**batch.inputs, **tokens},
        labels=torch.tensor(images),
        description=f"{source.description}, {len(images)} pairs",
        notes=batch.notes,
    )


def _pairs(source: Items, request: DataRequest) -> Items:
    """One item a caption, with `(number of the image, caption)` as what is told."""
    items = source.items
    if not isinstance(items, Sequence):
        wanted = None if request.count is None else request.count + request.extra + _SPARE
        items = list(islice(items, wanted))
    else:
        items = random.Random(request.seed).sample(items, len(items))
    captions = [_captions(item.told, item.name) for item in items]
    mute = [item.name for item, found in zip(items, captions, strict=True) if not found]
    rounds = range(max(map(len, captions), default=0))
    pairs = [
        replace(item, told=(image, captions[image][turn]))
        for turn in rounds
        for image, item in enumerate(items)
        if turn < len(captions[image])
    ]
    notes = source.notes
    if mute:
        notes = (*notes, f"skipped {len(mute)} images without a caption: {listed(mute)}")
        if not pairs:
            raise DataError(
                f"none of the {len(mute)} images of {source.description} has a caption; put a .txt "
                "file of the same name beside each, or name a .jsonl or .csv file of paths and "
                "captions"
            )
    return replace(source, items=pairs, notes=notes)


def _captions(told: Any, name: str) -> list[str]:
    told = [] if told is None else told
    every = [told] if isinstance(told, str) else told
    if not isinstance(every, list | tuple) or not all(isinstance(text, str) for text in every):
        raise DataError(
            f"the caption of {name} is a {type(told).__name__}; give a text or a list of "
            "texts, or name the column with text_field="
        )
    return [text.strip() for text in every if text.strip()]


@contextmanager
def _open_pairs(data: Any, request: DataRequest) -> Iterator[Items]:
    path = local_path(data)
    if path is None:
        yield _rows(data, request, request.split, "pairs given as an iterable")
    elif path.suffix.lower() in _TABLES and path.is_file():
        if request.split is not None:
            raise RequestError(
                f"split='{request.split}' was asked for, but the file {path} has no splits; leave "
                "it out"
            )
        yield _table(path, request)
    else:
        with open_tree(path) as whole:
            tree = whole.split(request.split)
            metadata = [name for name in _METADATA if name in tree.files and tree.root]
            if metadata and tree.root is not None:
                yield _table(tree.root / metadata[0], request)
            else:
                yield _beside(tree)


def _rows(data: Any, request: DataRequest, split: str | None, description: str) -> Items:
    return open_rows(
        data,
        columns=CAPTION_COLUMNS,
        field=request.field,
        argument="text_field",
        needed=True,
        split=split,
        seed=request.seed,
        description=description,
    )


def _table(path: Path, request: DataRequest) -> Items:
    """Rows of a file; several rows of one image are its captions."""
    items: dict[str, Item] = {}
    chosen: tuple[str, str | None] | None = None
    for where, row in file_rows(path, lambda _: True):
        if chosen is None:
            chosen = pick_columns(
                row,
                str(path),
                columns=CAPTION_COLUMNS,
                field=request.field,
                argument="text_field",
            )
        place, told = (row.get(name or "") for name in chosen)
        if not isinstance(place, str):
            raise DataError(
                f"{where} has no image path in '{chosen[0]}'; give paths relative to the file"
            )
        before = items[place].told if place in items else []
        said = _captions(told, where)
        items[place] = Item(place, partial(decoded, path.parent / place), [*before, *said])
    return Items(list(items.values()), str(path))


def _beside(tree: Tree) -> Items:
    """Images of a folder with the lines of the text file of the same name."""
    texts = {name for name in tree.files if PurePosixPath(name).suffix.lower() == ".txt"}

    def lines(name: str) -> list[str]:
        text = str(PurePosixPath(name).with_suffix(".txt"))
        return tree.read(text).decode(errors="replace").splitlines() if text in texts else []

    return Items([tree.item(name, lines(name)) for name in tree.images], tree.description)


def _tokenizer(opened: Any) -> Any:
    if opened.tokenizer is None:
        raise DataError(
            f"'{opened.model_id}' has no tokenizer beside it, and captions were given; pass one "
            "with --tokenizer (tokenizer=...)"
        )
    if opened.tokenizer.pad_token is None:
        raise DataError(
            f"the tokenizer of '{opened.model_id}' has no padding token, which captions of "
            "different length need; set tokenizer.pad_token"
        )
    return opened.tokenizer


def _tokenized(
    tokenizer: Any, texts: list[str], config: Any, window: int | None, full_width: bool
) -> dict[str, Tensor]:
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (window, longest, tokenizer.model_max_length) if limit]
    found = tokenizer(
        texts,
        padding="max_length" if full_width else "longest",
        truncation=True,
        max_length=min(limits),
        return_tensors="pt",
    )
    names = ("input_ids",) if full_width else ("input_ids", "attention_mask")
    return {name: found[name] for name in names if name in found}
