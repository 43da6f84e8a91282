"""KHQE: keyword-enhanced hierarchical quantisation encoding (the tokenizer in the box)."""
