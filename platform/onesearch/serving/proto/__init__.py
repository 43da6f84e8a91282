"""The gateway's protocol. ``onesearch_pb2*.py`` are made from ``onesearch.proto`` by ``compile.py``."""
