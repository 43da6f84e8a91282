"""Learning halves for the toy servers: no torch, seconds to train, checkpoints that can be resumed."""
