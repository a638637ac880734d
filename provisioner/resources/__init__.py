"""Wanted and observed resources, and the difference between them: pure functions over plain values."""
