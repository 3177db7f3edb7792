"""Ways to guess the next tokens, one file each; the session chooses among them."""
