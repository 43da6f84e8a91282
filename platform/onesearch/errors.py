"""Errors meant for people: what was wrong, where, and what to do about it.

Every error a user can cause derives from :class:`OneSearchError`. The command line prints its message without
a traceback and exits with ``exit_status``; the gateway maps it to a gRPC status code.
"""

from __future__ import annotations


class OneSearchError(Exception):
    """Something failed that the user should hear about in one or two sentences (exit status 1)."""

    exit_status = 1


class UsageError(OneSearchError):
    """The input or the request itself is wrong: a bad option, file, row or field (exit status 2)."""

    exit_status = 2


class DataError(UsageError):
    """A row or file does not fit its schema; the message names file, row and column."""


class ConfigError(UsageError):
    """The configuration does not fit; the message names the key and the nearest right one."""


class PluginError(OneSearchError):
    """A plugin cannot be used; the message names the plugin, its distribution and the reason."""


class ArtifactError(OneSearchError):
    """A saved artifact or release is missing, truncated or changed; the message names the file."""


class ServingError(OneSearchError):
    """A server could not start or answer; the message says what to do."""
