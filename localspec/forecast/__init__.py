"""What this machine will do with a model: the one place that joins facts, machine and settings."""
