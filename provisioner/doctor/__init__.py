"""What is wrong with a host and why: mechanisms of failure (data) held against what a capture shows."""
