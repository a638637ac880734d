"""Ports that somebody listens on, out of the kernel's own table."""

from __future__ import annotations

from provisioner.facts.listeners import listeners

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2204 1 0 100 0 0 10 0
   1: 0100007F:1F91 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2205 1 0 100 0 0 10 0
"""


def test_only_those_that_listen() -> None:
    """A connection's own port is not one; a table that is not there has none."""
    assert listeners(TABLE) == {8080}
    assert listeners("") == set()
