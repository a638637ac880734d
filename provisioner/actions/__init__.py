"""The steps of each command, in reading order; effects come in as ports."""
