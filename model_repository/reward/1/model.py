"""What Triton's Python backend runs: the platform's own reward step."""

from onesearch.serving.models import RewardModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
