"""Settings: from yaml files, Python and the command line to checked option dataclasses."""
