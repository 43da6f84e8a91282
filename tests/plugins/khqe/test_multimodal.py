"""The extractor against a local server that speaks the protocol."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from onesearch.errors import ConfigError, OneSearchError
from onesearch.progress import SilentProgress
from onesearch_khqe.config import KhqeConfig, MultimodalConfig
from onesearch_khqe.extractors import make_extractor
from onesearch_khqe.multimodal import ChatClient, MultimodalExtractor, image_part, parse_answer


class Model:
    """What the server saw and what it shall answer: a text, or an HTTP status, or bytes as they are."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.script: list[int | bytes] = []
        self.address = ""

    def reply(self, request: dict[str, Any]) -> str:
        text = request["messages"][1]["content"][0]["text"]
        words = [
            {"text": text.split()[-1].upper(), "attribute": "entity"},
            {"text": "x", "attribute": "Nonsense"},
        ]
        return "```json\n" + json.dumps({"keywords": words}) + "\n```"


@pytest.fixture
def model() -> Iterator[Model]:
    state = Model()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.seen.append(body)
                state.headers.append({**self.headers, "path": self.path})
                step = state.script.pop(0) if state.script else 200
            payload = step if isinstance(step, bytes) else b'{"error": "slow down"}'
            if step == 200:
                choice = {"message": {"role": "assistant", "content": state.reply(body)}}
                payload = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
            self.send_response(step if isinstance(step, int) else 200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    server.server_close()


def items(tmp_path: Path) -> pl.DataFrame:
    image = tmp_path / "lamp.png"
    image.write_bytes(b"\x89PNG....")
    rows = {
        "item_id": ["a", "b", "c"],
        "title": ["red lamp", "oak rug", "big sofa"],
        "attributes": [[], [{"type": "Entity", "value": "Rug"}], []],
        "image_uri": [str(image), None, "https://example.org/sofa.jpg"],
    }
    return pl.DataFrame(rows)


def config(model: Model, **more: Any) -> KhqeConfig:
    settings = {"endpoint": model.address, "model": "seer", "parallel": 2, "retries": 2, **more}
    return KhqeConfig(keywords={"extractor": "multimodal"}, multimodal=settings)  # type: ignore[arg-type]


def read(extractor: Any, frame: pl.DataFrame, work: Path) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = extractor.read_items(
        frame, frame["title"].to_list(), [5, 9, 7], work, SilentProgress()
    )
    return found


def test_items_without_attributes_are_asked_about(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESEARCH_MULTIMODAL_KEY", "secret")
    extractor = make_extractor(config(model))
    assert isinstance(extractor, MultimodalExtractor)
    found = read(extractor, items(tmp_path), tmp_path / "work")
    assert found == [[("lamp", "Entity")], [("rug", "Entity")], [("sofa", "Entity")]]
    assert len(model.seen) == 2 and model.headers[0]["path"] == "/v1/chat/completions"
    assert {header["Authorization"] for header in model.headers} == {"Bearer secret"}
    by_text = {body["messages"][1]["content"][0]["text"]: body for body in model.seen}
    lamp, sofa = by_text["red lamp"]["messages"][1]["content"], by_text["big sofa"]["messages"][1]["content"]
    assert by_text["red lamp"]["model"] == "seer"
    data = lamp[1]["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(data) == b"\x89PNG...."
    assert sofa[1]["image_url"]["url"] == "https://example.org/sofa.jpg"
    # Asked again, after a kill that cut a line short: nothing is asked twice.
    with (tmp_path / "work/multimodal.jsonl").open("a") as file:
        file.write('{"key": "cut sh')
    assert read(make_extractor(config(model)), items(tmp_path), tmp_path / "work") == found
    assert len(model.seen) == 2


def test_only_the_most_viewed(model: Model, tmp_path: Path) -> None:
    found = read(make_extractor(config(model, items=1)), items(tmp_path), tmp_path)
    assert found[0] == [] and found[2] == [("sofa", "Entity")] and len(model.seen) == 1


def test_busy_servers_are_asked_again(model: Model) -> None:
    model.script = [429, 503, 200]
    client = ChatClient(MultimodalConfig(endpoint=model.address, retries=2), pause_s=0.0)
    assert "LAMP" in client.complete(client.request("red lamp", None))
    assert len(model.seen) == 3


@pytest.mark.parametrize(
    ("script", "message", "asked"),
    [([401, 200], "HTTP 401", 1), ([500] * 3, "HTTP 500", 3), ([b"{}"], "not a chat completion", 1)],
)
def test_an_endpoint_that_refuses(model: Model, script: list[int | bytes], message: str, asked: int) -> None:
    model.script = script
    client = ChatClient(MultimodalConfig(endpoint=model.address, retries=2), pause_s=0.0)
    with pytest.raises(OneSearchError, match=message):
        client.complete(client.request("lamp", None))
    assert len(model.seen) == asked


def test_nobody_there() -> None:
    client = ChatClient(
        MultimodalConfig(endpoint="http://127.0.0.1:9/v1", retries=1, timeout_s=2), pause_s=0.0
    )
    with pytest.raises(OneSearchError, match="does not answer"):
        client.complete(b"{}")
    with pytest.raises(ConfigError, match="endpoint"):
        ChatClient(MultimodalConfig(endpoint="ftp://models"))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no",
        "{}",
        '{"keywords": 3}',
        '{"keywords": [3, {"text": "", "attribute": "Color"}]}',
        '{"keywords": [',
    ],
)
def test_odd_answers_give_nothing(answer: str) -> None:
    assert parse_answer(answer) == []


def test_images_that_are_not_sent(tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(b"x" * 100)
    assert image_part(str(large), 10) is None and image_part("nowhere.png", 10) is None
    assert image_part(None, 10) is None and image_part("https://example.org/a.png", 0) is None
