"""What Triton's Python backend runs: the platform's own resolver step."""

from onesearch.serving.models import ResolverModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
