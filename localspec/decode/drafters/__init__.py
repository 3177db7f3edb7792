"""Who guesses tokens."""
