"""Guard heads: compiling, training and evaluation, with NumPy and scikit-learn."""
