"""What a GGUF file says of itself: its header, facts that follow from it, and random models to measure with."""
