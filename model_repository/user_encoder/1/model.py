"""What Triton's Python backend runs: the platform's own user encoder step."""

from onesearch.serving.models import UserEncoderModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
