"""The command line: parse, call the verbs of `prunepath.api`, print. It holds no logic.

Read `main.py` and `measuring.py` first (the commands), then `options.py` and `data_options.py`
(their flags), `session.py` (errors and Ctrl-C), `show.py` and `show_measured.py` (what is printed).
"""
