"""The messages; made from ``events.proto`` by ``python -m onesearch.serving.proto.compile``."""
