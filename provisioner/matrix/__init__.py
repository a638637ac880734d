"""What fits together: schema, reader and linter of the entries under `matrix/`, and their requirement language."""
