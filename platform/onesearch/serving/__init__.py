"""Embedded Triton, the model repository of a release, the gateway and its client."""

import os

# gRPC's newer way to wait for sockets hands each message from thread to thread, which takes a fifth of a
# millisecond of every call. The way is chosen when gRPC is imported, so this must come before.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
