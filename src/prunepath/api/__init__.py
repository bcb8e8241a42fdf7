"""The public verbs, one a file: they validate, call the rooms in order, return plain objects."""
