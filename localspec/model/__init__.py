"""What a GGUF file says of itself, what follows from that, and random models to measure with."""
