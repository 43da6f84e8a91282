from __future__ import annotations

import pytest
import redis
from onesearch.errors import ArtifactError, OneSearchError, ServingError, UsageError
from onesearch.shoppers.events import Event
from onesearch.shoppers.opening import open_states
from onesearch.shoppers.redis_store import RedisStates
from onesearch.shoppers.state import ShopperState

from .conftest import RedisServer

NOON = 1_700_000_000
NOBODY_THERE = "redis://me:secret@127.0.0.1:1/0"


def click(user: str = "u", time_s: int = NOON) -> Event:
    return Event(user, time_s, "click", "a", "lamp")


def test_no_server() -> None:
    with pytest.raises(
        ServingError, match=r"^redis://me:…@127\.0\.0\.1:1/0: no Redis answers there"
    ) as raised:
        open_states(NOBODY_THERE)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://host/name", "redis://host:port/0", "redis://me:secret@host:99999/0", "redis:host"],
)
def test_a_wrong_url(url: str) -> None:
    with pytest.raises(UsageError, match="redis://HOST:PORT/DATABASE") as raised:
        open_states(url)
    assert "secret" not in str(raised.value)


def test_a_server_that_goes_and_comes(redis_server: RedisServer, redis_url: str) -> None:
    with open_states(redis_url) as store:
        store.update({"u": [click()]})
        redis_server.stop()
        try:
            with pytest.raises(ServingError, match="no Redis answers"):
                store.get("u")
            with pytest.raises(ServingError, match="no Redis answers"):
                store.update({"u": [click()]}, {"t/0": 1})
        finally:
            redis_server.start()
        assert not store.get("u").known
        store.update({"u": [click()]}, {"t/0": 1})
        assert store.get("u").known


def test_other_formats_and_passwords(redis_server: RedisServer, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("onesearch:states:format", "9")
        with pytest.raises(ArtifactError, match="of format 9; this OneSearch reads format 1"):
            open_states(redis_url, read_only=True)
        client.flushdb()
        client.config_set("requirepass", "secret")
        try:
            with pytest.raises(ServingError, match="Redis does not let us in"):
                open_states(redis_url)
            with open_states(redis_url.replace("//", "//:secret@")) as store:
                assert store.url == redis_url.replace("//", "//:…@")
        finally:
            client.auth("secret")
            client.config_set("requirepass", "")


def test_a_full_server(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client, open_states(redis_url) as store:
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(OneSearchError, match="maxmemory"):
                store.update({"u": [click()]})
        finally:
            client.config_set("maxmemory", "0")
        assert store.count == 0


def test_others_in_the_same_database_are_left_alone(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client, open_states(redis_url) as store:
        client.set("theirs", "1")
        store.put_many([ShopperState("u")])
        assert (client.get("theirs"), store.count, list(store.users())) == (b"1", 1, ["u"])


def test_an_empty_database_may_be_read(redis_url: str) -> None:
    with open_states(redis_url, read_only=True) as store:
        assert not store.get("u").known


def test_another_writer_comes_between(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is read again, so that nothing of either is lost."""
    from onesearch.shoppers import redis_store

    with RedisStates(redis_url) as store, RedisStates(redis_url) as other:
        fold_all, calls = redis_store.fold_all, []

        def slowly(*given: object) -> object:
            calls.append(given)
            if len(calls) == 1:
                monkeypatch.setattr(redis_store, "fold_all", fold_all)
                other.update({"u": [click(time_s=NOON + 1)]}, {"other": 1})
                monkeypatch.setattr(redis_store, "fold_all", slowly)
            return fold_all(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(redis_store, "fold_all", slowly)
        store.update({"u": [click()]}, {"own": 1})
        assert len(calls) == 2
        assert store.get("u").counts == (0, 2, 0)
        assert store.marks() == {"own": 1, "other": 1}
