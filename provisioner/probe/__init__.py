"""The script that travels to a host, what it is asked for, and how its answer is read."""
