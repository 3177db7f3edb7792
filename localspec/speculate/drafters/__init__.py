"""Ways to guess the next tokens; one file each, one line in `session.py` to make one available."""
