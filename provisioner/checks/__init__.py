"""testinfra tests for real hosts and molecule alike: a second opinion that shares no code with planning."""
