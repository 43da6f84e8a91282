"""What Triton's Python backend runs: the platform's own steps, all of them."""

from onesearch.serving.together import SearchModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
