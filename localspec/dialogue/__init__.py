"""Messages to tokens, and tokens to thought, text and tool calls."""
