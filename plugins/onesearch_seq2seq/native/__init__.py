"""The constrained beam search as a small native library: sources, build, weights and binding."""
