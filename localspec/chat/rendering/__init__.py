"""An answer on a screen while it comes."""
