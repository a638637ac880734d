"""What differs from network to network in code; all else of them is data in matrix/networks."""
