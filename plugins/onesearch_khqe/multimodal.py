"""Asking a multimodal model for an item's keywords, over an OpenAI-style chat-completions endpoint."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import mimetypes
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
from onesearch.errors import ConfigError, OneSearchError
from onesearch.progress import Progress

from onesearch_khqe.attributes import ATTRIBUTES, NUMBER
from onesearch_khqe.config import MultimodalConfig
from onesearch_khqe.extractor import KeywordExtractor
from onesearch_khqe.items import structured_keywords
from onesearch_khqe.words import normalise

KEYWORD_LIMIT = 64
PROMPT = (
    "You read one item of a shop. Name the keywords that shoppers would search it by, each with its "
    "attribute type. "
    f"Types: {', '.join(ATTRIBUTES)}. Use words of the item's own language. Answer with JSON only: "
    '{"keywords": [{"text": "...", "attribute": "..."}]}'
)


class MultimodalExtractor(KeywordExtractor):
    """Structured attributes where an item has them, else what the model answers; queries by matching.

    What the model says joins the keyword pool, so that serving needs no model. Answers are kept in
    ``work/multimodal.jsonl``: an interrupted run asks no item twice.
    """

    def read_items(
        self, items: pl.DataFrame, texts: Sequence[str], views: Sequence[int], work: Path, progress: Progress
    ) -> list[list[tuple[str, str]]]:
        """Per item ``(text, attribute type)``. Raises OneSearchError when the endpoint cannot be reached or
        refuses."""
        settings = self.config.multimodal
        found = structured_keywords(items)
        images = items["image_uri"].to_list() if "image_uri" in items.columns else [None] * len(items)
        bare = sorted((row for row in range(len(items)) if not found[row]), key=lambda row: -views[row])
        client = ChatClient(settings)
        with AnswerCache(work / "multimodal.jsonl") as cache:
            asked = bare[: settings.items]

            def ask(row: int) -> tuple[int, str, list[tuple[str, str]] | None]:
                request = client.request(texts[row], image_part(images[row], settings.image_bytes))
                key = hashlib.blake2b(request, digest_size=16).hexdigest()
                known = cache.get(key)
                return row, key, known if known is not None else parse_answer(client.complete(request))

            with (
                progress.task("Asking the multimodal model", len(asked)) as task,
                ThreadPoolExecutor(settings.parallel) as pool,
            ):
                for row, key, keywords in pool.map(ask, asked):
                    found[row] = keywords or []
                    cache.put(key, found[row])
                    task.advance()
        return found


class AnswerCache:
    """Answers by request, one JSON line each; a line cut short by a kill is ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[tuple[str, str]]] = {}

    def __enter__(self) -> AnswerCache:
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._known[entry["key"]] = [(text, kind) for text, kind in entry["keywords"]]
                except (ValueError, KeyError, TypeError):
                    continue
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8")
        # After a kill the last line may lack its end; an empty line is harmless.
        self._file.write("\n")
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def get(self, key: str) -> list[tuple[str, str]] | None:
        """What was answered, None if it was not asked yet."""
        return self._known.get(key)

    def put(self, key: str, keywords: list[tuple[str, str]]) -> None:
        """Keep an answer."""
        if key not in self._known:
            self._known[key] = keywords
            self._file.write(json.dumps({"key": key, "keywords": keywords}, ensure_ascii=False) + "\n")
            self._file.flush()


class ChatClient:
    """Speaks just enough of the chat-completions protocol, with the standard library's HTTP client."""

    def __init__(self, settings: MultimodalConfig, pause_s: float = 0.5) -> None:
        address = urlsplit(settings.endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError(
                f"tokenizer.khqe.multimodal.endpoint: '{settings.endpoint}' is not an http(s) address"
            )
        self._settings = settings
        self._address = address
        self._path = f"{address.path.rstrip('/')}/chat/completions"
        self._pause_s = pause_s

    def request(self, text: str, image: dict[str, Any] | None) -> bytes:
        """Body of a request for one item."""
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if image is not None:
            content.append(image)
        body = {
            "model": self._settings.model,
            "temperature": 0,
            "response_format": {"type": "json_object"},
            "messages": [{"role": "system", "content": PROMPT}, {"role": "user", "content": content}],
        }
        return json.dumps(body, ensure_ascii=False).encode()

    def complete(self, body: bytes) -> str:
        """The model's answer to one request. Raises OneSearchError once the retries are used up."""
        reason = ""
        for attempt in range(self._settings.retries + 1):
            if attempt:
                time.sleep(self._pause_s * 2 ** (attempt - 1))
            try:
                status, payload = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if status == 200:
                try:
                    return str(json.loads(payload)["choices"][0]["message"]["content"])
                except (ValueError, KeyError, IndexError, TypeError) as error:
                    raise OneSearchError(
                        f"{self._settings.endpoint}: its answer is not a chat completion ({error!r})"
                    ) from error
            reason = f"HTTP {status}: {payload[:200].decode('utf-8', 'replace')}"
            if status != 429 and status < 500:
                break
        raise OneSearchError(f"{self._settings.endpoint}: the multimodal model does not answer ({reason})")

    def _post(self, body: bytes) -> tuple[int, bytes]:
        https = self._address.scheme == "https"
        make = http.client.HTTPSConnection if https else http.client.HTTPConnection
        assert self._address.hostname is not None
        connection = make(self._address.hostname, self._address.port, timeout=self._settings.timeout_s)
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self._settings.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def image_part(uri: str | None, limit: int) -> dict[str, Any] | None:
    """The image's part of a message: web addresses as they are, local files inline; None when there is
    nothing to send."""
    if not uri or not limit:
        return None
    if uri.startswith(("http://", "https://", "data:")):
        return {"type": "image_url", "image_url": {"url": uri}}
    path = Path(uri.removeprefix("file://"))
    try:
        if path.stat().st_size > limit:
            return None
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return None
    kind = mimetypes.guess_type(path.name)[0] or "image/jpeg"
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def parse_answer(answer: str) -> list[tuple[str, str]]:
    """Keywords in a model's answer; anything that is not a known type with a short text is left out.

    Models wrap JSON in fences or words: what counts is the outermost pair of braces.
    """
    try:
        listed = json.loads(answer[answer.index("{") : answer.rindex("}") + 1])["keywords"]
    except (ValueError, KeyError, TypeError):
        return []
    by_lower = {name.lower(): name for name in NUMBER}
    found: dict[tuple[str, str], None] = {}
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict):
            continue
        text = normalise(str(entry.get("text") or ""))
        kind = by_lower.get(str(entry.get("attribute") or "").strip().lower())
        if kind and 0 < len(text) <= KEYWORD_LIMIT:
            found[(text, kind)] = None
    return list(found)
