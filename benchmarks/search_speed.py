"""What a search costs against plain forward and backward passes over the same tokens.

    python -m benchmarks search_speed                                   # SmolLM2-135M, this machine
    python -m benchmarks search_speed --shape llama-7b --device cuda --dtype bfloat16 --tokens 65536

The plain passes take gradients of activations only, with weights frozen, as the search does.
Random weights cost what real ones cost, so the large shape needs no download.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.protocol import WINDOW, WINDOWS, Rows, opened, text

SHAPES = {
    "llama-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    },
}


def main(arguments: list[str]) -> None:
    """Measure and append one row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks search_speed", description=__doc__)
    parser.add_argument("--shape", choices=["smollm2-135m", *SHAPES], default="smollm2-135m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=WINDOWS * WINDOW)
    parser.add_argument("--window", type=int, default=WINDOW)
    parser.add_argument("--moment-windows", type=int, default=64)
    parser.add_argument("--method", default="spp")
    options = parser.parse_args(arguments)
    count = options.tokens // options.window
    model, tokenizer, data = _model(options.shape, options.device, options.dtype)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    row = _measure(model, tokenizer, data, options, count)
    Rows("search_speed").add(
        {
            **vars(options),
            **row,
            "weight_bytes": weights,
        }
    )


def _model(shape: str, device: str, dtype: str) -> tuple[Any, Any, Any]:
    import torch

    if shape not in SHAPES:
        return opened().model.to(device, getattr(torch, dtype)), opened().tokenizer, text("valid")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(getattr(torch, dtype))
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape], tie_word_embeddings=False)).eval()
        torch.set_default_dtype(torch.float32)
    return model, None, None


def _measure(
    model: Any, tokenizer: Any, data: Any, options: argparse.Namespace, count: int
) -> dict[str, float]:
    """Seconds of the search's stages, its peak memory, then seconds of the plain passes."""
    import torch

    from prunepath.data.samples import Samples
    from prunepath.data.windows import token_windows
    from prunepath.methods.method import METHODS, SearchContext, total_order
    from prunepath.statistics.collect import Wanted
    from prunepath.statistics.run import collect
    from prunepath.structure.discover import discover
    from prunepath.structure.gates import frozen
    from prunepath.tasks.causal_lm import CAUSAL_LM

    total = count + options.moment_windows
    if tokenizer is None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.config.vocab_size, (total, options.window), generator=generator)
        samples = Samples(inputs={"input_ids": ids})
    else:
        samples = token_windows(data, tokenizer, window=options.window, count=total)
    calibration = samples.rows(0, count)
    structure = discover(model)
    scorer = METHODS[options.method]()
    forward_only = Wanted(gradients=False, moments=True, output_gradients=False)
    clock = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        how = {"objective": "kl", "seed": 0, "folder": Path(folder), "output_batches": 0}
        sums = collect(model, structure, CAUSAL_LM, calibration, scorer.wanted(), **how)
        clock.append(time.perf_counter())
        if options.moment_windows:
            how["folder"] = Path(folder) / "moments"
            how["folder"].mkdir()
            more = samples.rows(count, total)
            sums = collect(model, structure, CAUSAL_LM, more, forward_only, onto=sums, **how)
        clock.append(time.perf_counter())
        with frozen(model):
            ranking = scorer.rank(
                SearchContext(
                    model=model,
                    structure=structure,
                    statistics=sums,
                    task=CAUSAL_LM,
                    samples=calibration,
                )
            )
        total_order(structure, ranking)
        clock.append(time.perf_counter())
    peak = _peak_bytes(options.device)  # before the plain passes, which keep every activation
    plain = min(8, count)  # a few windows are enough to know the pace
    plain_seconds = _timed(model, lambda: _plain(model, samples.rows(0, plain))) / plain * count
    return {
        "plain_seconds": plain_seconds,
        "statistics_seconds": clock[1] - clock[0],
        "moments_seconds": clock[2] - clock[1],
        "order_seconds": clock[3] - clock[2],
        "search_seconds": clock[3] - clock[0],
        "search_over_plain": (clock[3] - clock[0]) / plain_seconds,
        "peak_bytes": peak,
    }


def _timed(model: Any, run: Any) -> float:
    import torch

    start = time.perf_counter()
    run()
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _plain(model: Any, samples: Any) -> None:
    import torch

    from prunepath.structure.gates import frozen
    from prunepath.tasks.causal_lm import CAUSAL_LM

    with frozen(model):
        for window in samples.batches(1):
            ids = window.to(next(model.parameters()).device)["input_ids"]
            embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
            logits = model(inputs_embeds=embedded, use_cache=False).logits
            generator = torch.Generator().manual_seed(0)
            logits.backward(CAUSAL_LM.draw(logits, window, "kl", generator))


def _peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
