"""An encoder-decoder generator with constrained, guided beam search (the generator in the box)."""
