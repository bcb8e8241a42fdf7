"""OPTIN (arXiv 2403.17921): score a unit by how far its removal bends the features behind it.

Read in this order: `config.py` (settings), `tape.py` (what a model calls, in which order),
`features.py` (where features are read), `batching.py` (which samples run together), `rows.py`
(which rows are compared, and how far two sets of them are apart), `scores.py` (the table of all
scores and its file), `exact.py` (every unit removed once), `probes.py`, `allotment.py` and
`gauss_newton.py` (all units estimated at once), `hybrid.py` (both), `optin.py` (the method).
"""
