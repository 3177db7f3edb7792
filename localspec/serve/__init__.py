"""One loaded model for many users, over HTTP."""
