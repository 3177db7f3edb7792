"""Names of models to files on this machine."""
