"""The fixtures of the verbs."""

from __future__ import annotations

from tests.api.fixtures import model_folder, no_fresh_process, path_folder, text_file

__all__ = ["model_folder", "no_fresh_process", "path_folder", "text_file"]
