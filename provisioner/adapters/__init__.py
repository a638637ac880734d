"""The only rooms with effects: ssh, Ansible, testinfra, Docker, the clock, the disk."""
