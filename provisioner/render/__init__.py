"""Plan → playbook, inventory and files, as plain text; undefined names are errors."""
