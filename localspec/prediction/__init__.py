"""What a machine should do with a model, with an interval; needs no engine."""
