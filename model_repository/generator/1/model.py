"""What Triton's Python backend runs: the platform's own generator step."""

from onesearch.serving.models import GeneratorModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
