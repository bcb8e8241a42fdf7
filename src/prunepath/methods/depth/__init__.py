"""Depth: orders of whole sub-layers and whole layers, which leave without a trace of their width.

`influence` reads how far they turn the residual stream, one-shot; `blocks` chooses runs of layers
that lie side by side; `finercut` removes one after the other, by the answer of the model without
them (`greedy`, `distance`). Which units these are is said in `sublayers`.
"""
