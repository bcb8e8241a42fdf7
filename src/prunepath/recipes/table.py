"""The recipes that ship, one a line or two, and the registry that is open to further ones.

A recipe named after a publication does what that publication does with this library's units:
where its paper repairs nothing, neither does it. Our repair on top is said where it is used
(`--refit sequential`, or the name `taylor+sequential` in a comparison).
"""

from __future__ import annotations

from prunepath.recipes.recipe import Recipe
from prunepath.registry import Registry

__all__ = ["RECIPES"]

RECIPES: Registry[Recipe] = Registry("recipe", "prunepath.recipes")

for _recipe in (
    Recipe(
        name="spp",
        method="spp",
        summary="solution path on a model of the loss; the default",
        paper="Solution Path Pruning, ICLR 2025, arXiv 2501.03289",
    ),
    Recipe(
        name="fisher",
        method="fisher",
        summary="diagonal Fisher of the gates, without labels",
        paper="first stage of Kwon et al., NeurIPS 2022, arXiv 2204.09656",
        refit="none",
    ),
    Recipe(
        name="optin",
        method="optin",
        summary="how far a removal bends the features behind it; no labels, no training",
        paper="The Need for Speed, ICLR 2024, arXiv 2403.17921",
        refit="none",
    ),
    Recipe(
        name="kwon",
        method="fisher",
        summary="diagonal Fisher without labels, exact choice, exchanged units, one scale per unit",
        paper="Kwon et al., NeurIPS 2022, arXiv 2204.09656",
        rule="knapsack",
        rearrange="kwon",
        multiple=1,
        refit="scales",
    ),
    Recipe(
        name="taylor",
        method="taylor",
        summary="first-order Taylor on the task loss",
        paper="Molchanov et al., ICLR 2017, arXiv 1611.06440",
        refit="none",
    ),
    Recipe(
        name="wanda-sp",
        method="residual",
        config={"repair": "none", "metric": "wanda", "standardise": "relative"},
        summary="energy of a unit's inputs times its weights, within each layer",
        paper="structured form of Wanda (arXiv 2306.11695) in FLAP, AAAI 2024",
        refit="none",
    ),
    Recipe(
        name="flap",
        method="residual",
        config={"repair": "bias", "metric": "wifv", "standardise": "zscore"},
        summary="fluctuation of a unit's inputs times its weights, by z-scores; biases repair",
        paper="FLAP, AAAI 2024, arXiv 2312.11983",
        refit="bias",
    ),
    Recipe(
        name="obs",
        method="residual",
        config={"repair": "linear"},
        summary="output error after the best repair of the weights, in rounds",
        paper="OSSCAR (arXiv 2403.12983) and ZipLM (arXiv 2302.04089)",
        refit="moments",
    ),
    Recipe(
        name="obs-bias",
        method="residual",
        config={"repair": "linear+bias"},
        summary="output error after the best repair of weights and biases, in rounds",
        refit="moments",
        bias=True,
    ),
    Recipe(
        name="gblm",
        method="gblm",
        summary="weights times inputs and times gradients, summed over a unit",
        paper="GBLM-Pruner, arXiv 2311.04902, on units",
        refit="none",
    ),
    Recipe(
        name="adapt-pruner",
        method="adapt",
        config={"base": "taylor:reduction=sum", "steps": 50, "amplitude": 0.02},
        summary="small steps, fewer units of layers that matter, scored anew after every step",
        paper="Adapt-Pruner, arXiv 2502.03460, without its training between steps",
        refit="none",
    ),
    Recipe(
        name="icbs",
        method="taylor",
        summary="first-order Taylor, refined by swaps under a model measured where the cut is",
        paper="iCBS, arXiv 2411.17796, on units and without annealing",
        rearrange="swaps",
        refit="none",
    ),
    Recipe(
        name="pq",
        method="pq",
        summary="norms of units; each group goes down to the size its PQ index gives",
        paper="Diao et al., ICLR 2023, arXiv 2302.05601",
        refit="none",
    ),
    Recipe(
        name="shortgpt",
        method="block-influence",
        config={"unit": "layer", "distance": "cosine"},
        summary="whole layers that hardly turn the residual stream, one-shot",
        paper="ShortGPT, arXiv 2403.03853",
        layout="per-layer",
        refit="none",
    ),
    Recipe(
        name="angular-blocks",
        method="block-influence",
        config={"unit": "layer", "distance": "angular", "blocks": True},
        summary="one run of layers side by side, by the angle between its two ends",
        paper="Gromov et al., ICLR 2025, arXiv 2403.17887",
        layout="per-layer",
        refit="none",
    ),
    Recipe(
        name="sublayer-cosine",
        method="block-influence",
        config={"unit": "sublayer", "distance": "cosine"},
        summary="attention and FFN sub-layers that hardly turn the residual stream, one-shot",
        paper="He et al., What Matters in Transformers?, arXiv 2406.15786",
        layout="per-layer",
        refit="none",
    ),
    Recipe(
        name="finercut",
        method="finercut",
        config={"samples": 10, "tokens": 256},
        summary="sub-layers one after the other, by the answer of the model without them",
        paper="FinerCut, arXiv 2405.18218",
        layout="per-layer",
        refit="none",
    ),
    Recipe(
        name="tyr",
        method="residual",
        config={"repair": "linear"},
        summary="output error after repair within a sub-layer; evolution of sizes across them",
        paper="Tyr-the-Pruner, NeurIPS 2025, arXiv 2503.09657",
        rule="evolution",
        refit="sequential",
    ),
    Recipe(
        name="ecoflap",
        method="residual",
        config={"repair": "none", "metric": "wanda", "standardise": "relative"},
        summary="Wanda-sp within a sub-layer; sizes by how much the loss feels noise",
        paper="ECoFLaP, ICLR 2024, arXiv 2310.02998, on units",
        rule="shares",
        refit="none",
    ),
    Recipe(
        name="rd",
        method="magnitude",
        summary="norms of the weights of a unit; sizes by measured curves of distance",
        paper="rate-distortion pruning, ICCV 2023, on units",
        rule="curves",
        refit="none",
    ),
    Recipe(
        name="laptop",
        method="magnitude",
        summary="whole sub-layers, each measured by its removal; exact choice",
        paper="LAPTOP-Diff, arXiv 2404.11098, on sub-layers",
        kinds=("attention", "ffn"),
        rule="curves",
        refit="none",
    ),
    Recipe(
        name="magnitude",
        method="magnitude",
        summary="norms of the weights of a unit",
        paper="Li et al., ICLR 2017, arXiv 1608.08710",
        refit="none",
    ),
    Recipe(
        name="global-magnitude",
        method="magnitude",
        summary="norms of the weights of a unit over all layers, none of which is emptied",
        paper="Global Magnitude Pruning with a minimum threshold, arXiv 2209.14624, on units",
        floor="5%",
        refit="none",
    ),
    Recipe(
        name="random",
        method="random",
        summary="a random order: what every method has to beat",
        refit="none",
    ),
):
    RECIPES.register(_recipe.name, _recipe)
