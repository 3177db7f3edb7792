"""GGUF files: read, checked, written; on this disk or elsewhere."""
