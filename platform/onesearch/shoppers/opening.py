"""Opening a store of shoppers' states by its URL."""

from __future__ import annotations

import re

from onesearch.errors import UsageError
from onesearch.shoppers.store import StateStore

FORMS = "lmdb:PATH, a path, or redis://HOST:PORT/DATABASE"


def open_states(url: str, read_only: bool = False, map_bytes: int | None = None) -> StateStore:
    """Open a store of states.

    Args:
        url: ``lmdb:PATH`` or a plain path: a folder, made where it is not there unless it is to be read only;
            ``redis://HOST:PORT/DATABASE``, ``rediss://`` with TLS.
        read_only: refuse to write.
        map_bytes: how large a store in a folder may grow; None: as it was made. Redis has its own limits.

    Raises UsageError where the URL is none of these or there is nothing to read, ServingError where no server
    answers, ArtifactError where what is there is broken or of another format.
    """
    # Imported when asked for: who keeps states in a folder needs no client for Redis.
    scheme, colon, rest = url.partition(":")
    if scheme in ("redis", "rediss") and colon:
        from onesearch.shoppers.redis_store import RedisStates

        return RedisStates(url, read_only)
    if scheme == "lmdb" and colon:
        path = rest.removeprefix("//")
    elif re.match(r"\w+:(?!$)", url) or not url:
        raise UsageError(f"{url!r} names no store of shoppers' states: give {FORMS}")
    else:
        path = url
    if not path:
        raise UsageError(f"{url!r} names no folder: give {FORMS}")
    from onesearch.shoppers.lmdb_store import LmdbStates

    return LmdbStates(path, read_only, map_bytes)
