from onesearch_museq.caching import TextCache


def test_unknown_texts_are_made_in_one_call_and_kept() -> None:
    calls: list[list[str]] = []

    def make(texts: list[str]) -> list[int]:
        calls.append(texts)
        return [len(text) for text in texts]

    cache = TextCache(make, size=3)
    assert cache.of(["a", "bb", "a"]) == [1, 2, 1] and calls == [["a", "bb"]]
    assert cache.of([]) == [] and len(calls) == 1
    assert cache.of(["bb", "ccc", "dddd"]) == [2, 3, 4] and calls[1:] == [["ccc", "dddd"]]
    assert cache.of(["bb"]) == [2] and len(calls) == 2
    assert cache.of(["a"]) == [1] and calls[2:] == [["a"]]


def test_a_batch_larger_than_the_cache() -> None:
    cache = TextCache(lambda texts: [text * 2 for text in texts], size=2)
    texts = [str(n) for n in range(50)]
    assert cache.of(texts) == [text * 2 for text in texts]


def test_long_texts_are_not_kept() -> None:
    calls = []
    cache = TextCache(lambda texts: calls.append(texts) or texts, size=9)  # type: ignore[func-returns-value]
    assert cache.of(["x" * 100_000]) == cache.of(["x" * 100_000])
    assert len(calls) == 2
