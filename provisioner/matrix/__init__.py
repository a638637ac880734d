"""What fits together: schema, reader and linter of `matrix/`, and the requirement language of its entries."""
