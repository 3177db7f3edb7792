"""Messages to tokens, and tokens to text: templates, marks of thought, transcripts."""
