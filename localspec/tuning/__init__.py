"""Find the fastest settings for a model on this machine, and prove what they cost in quality."""
