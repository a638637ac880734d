"""Provisioning and compatibility for GPU hosts that serve decentralized compute networks."""

__version__ = "0.1.0"
