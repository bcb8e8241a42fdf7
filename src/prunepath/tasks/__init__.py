"""Tasks: what people use models for, one file a task; see `task.py` for the words.

A task is imported when it is first asked for, and a third party adds one with
`TASKS.register("name", task)` or a Python entry point in the group `prunepath.tasks`.
"""

from __future__ import annotations

from prunepath.tasks.task import TASKS

__all__ = ["TASKS"]

TASKS.register("causal-lm", "prunepath.tasks.causal_lm:CAUSAL_LM")
TASKS.register("image-classification", "prunepath.tasks.image_classification:IMAGE_CLASSIFICATION")
TASKS.register("image-text", "prunepath.tasks.image_text:IMAGE_TEXT")
TASKS.register("masked-lm", "prunepath.tasks.masked_lm:MASKED_LM")
TASKS.register("segmentation", "prunepath.tasks.segmentation:SEGMENTATION")
TASKS.register("sentence-embedding", "prunepath.tasks.sentence_embedding:SENTENCE_EMBEDDING")
TASKS.register("seq2seq-lm", "prunepath.tasks.seq2seq_lm:SEQ2SEQ_LM")
TASKS.register("speech", "prunepath.tasks.speech:SPEECH")
TASKS.register("speech-tokens", "prunepath.tasks.speech:SPEECH_TOKENS")
TASKS.register("text-classification", "prunepath.tasks.text_classification:TEXT_CLASSIFICATION")
