"""Tasks: what people use models for, one file a task; see `task.py` for the words."""
