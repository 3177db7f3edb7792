"""Imported before NumPy: on matrices this small its threads cost more than they give."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
