"""Find the fastest settings for a model on this machine, and measure their loss of quality."""
