"""Commonweight beside llama.cpp's own server: the same work in one run, reported as ratios."""

import os

# As the engine has it for its own process; read when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
