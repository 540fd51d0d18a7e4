"""Vectors of texts: sentence encoders and hashed n-grams, computed with NumPy."""
