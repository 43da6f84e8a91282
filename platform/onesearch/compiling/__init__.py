"""Graphs → sessions: ONNX Runtime on CPU, TensorRT on GPU."""
