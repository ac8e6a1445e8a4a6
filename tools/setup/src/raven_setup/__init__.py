"""python-raven as services of a Debian machine: set up, and taken away again."""
