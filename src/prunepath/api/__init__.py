"""The public verbs, one a file. They validate, call the rooms in order, and return plain objects."""
