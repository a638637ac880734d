"""Programs that run on the hosts: standard library, Python 3.6 or newer, sent as text and never imported here."""
