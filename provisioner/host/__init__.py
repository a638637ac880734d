"""Programs that are installed on hosts: Python 3.6 or newer, standard library only, nothing else of the project."""
