"""What Triton's Python backend runs: the platform's own tokenizer step."""

from onesearch.serving.models import TokenizerModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
