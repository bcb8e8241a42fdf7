"""The command line: parse, call the verbs of `prunepath.api`, print. It holds no logic.

Read `main.py` first (the commands), then `options.py` (their flags), `session.py` (errors and
Ctrl-C) and `show.py` (what is printed).
"""
