"""Embedded Triton, the model repository of a release, the gateway and its client."""
