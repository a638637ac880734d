"""Tunnels: intent, lock and collected public keys → addresses, config text, resources, health questions. Pure."""
