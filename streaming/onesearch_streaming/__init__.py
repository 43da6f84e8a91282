"""The learning loop: what shoppers do comes in, goes to log and state, and becomes a new release every
night."""
