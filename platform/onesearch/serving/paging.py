"""Pages of one ranking that neither repeat nor skip an item, whatever changes between them.

A page's token carries the keys of all items shown so far. The next page is the best of what was not shown:
the very next places where nothing changed, and still nothing twice where the shopper clicked meanwhile, the
catalogue moved on, or another release answers. The token names release and generation, so that the page is
answered under those of the first one as long as they are kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from dataclasses import dataclass, replace

from onesearch.errors import UsageError
from onesearch.serving.requests import KEY_BYTES, Limits, SearchRequest
from onesearch.shoppers.state import item_keys

_VERSION = 1
_CHECK, _HEAD = struct.Struct("<I"), struct.Struct("<B8sqB")
_NOT_OURS = "page_token: not the token of an earlier answer"


@dataclass(frozen=True)
class Page:
    """Where a ranking was left.

    Attributes:
        release, generation: what answered.
        asked: digest of the request, since a token belongs to it.
        shown: keys u64 of the items shown, in order.
    """

    release: str
    generation: int
    asked: bytes
    shown: bytes

    @classmethod
    def after(
        cls, request: SearchRequest, release: str, generation: int, item_ids: list[str], limits: Limits
    ) -> Page | None:
        """The page after an answer; None where there is nothing more to be shown."""
        if len(item_ids) < request.k or request.before + request.k >= limits.k or request.offset:
            return None
        keys: bytes = item_keys(item_ids).astype("<u8").tobytes()
        return cls(release, generation, digest(request), request.shown + keys)

    def pack(self) -> str:
        """As a token: text that may stand in a URL."""
        name = self.release.encode()
        told = _HEAD.pack(_VERSION, self.asked, self.generation, len(name)) + name + self.shown
        return base64.urlsafe_b64encode(_CHECK.pack(zlib.crc32(told)) + told).decode()

    @classmethod
    def unpack(cls, token: str) -> Page:
        """Read a token. Raises UsageError where it is none."""
        try:
            raw = base64.b64decode(token.encode("ascii"), b"-_", validate=True)
            (check,), told = _CHECK.unpack_from(raw), raw[_CHECK.size :]
            version, asked, generation, length = _HEAD.unpack_from(told)
            name, shown = told[_HEAD.size : _HEAD.size + length], told[_HEAD.size + length :]
            release = name.decode()
        except (ValueError, struct.error) as error:
            raise UsageError(_NOT_OURS) from error
        if version != _VERSION or len(shown) % KEY_BYTES or zlib.crc32(told) != check:
            raise UsageError(_NOT_OURS)
        return cls(release, generation, asked, shown)


def digest(request: SearchRequest) -> bytes:
    """8 bytes of everything that makes a ranking."""
    asked = request.filters
    made = {
        "query": request.query,
        "filters": {
            "category": asked.category,
            "brands": asked.brands,
            "min_price": asked.min_price,
            "max_price": asked.max_price,
            "in_stock": asked.in_stock,
        },
        "beams": request.beams,
        "certify": request.certify,
        "guide": request.guide,
        "rerank": request.rerank,
    }
    return hashlib.blake2b(json.dumps(made).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def turned(request: SearchRequest, limits: Limits) -> SearchRequest:
    """A request with a token as one for the page that it names.

    Raises UsageError where the token is none, is of another request, or leads past the last page.
    """
    page = Page.unpack(request.page_token)
    if page.asked != digest(request):
        raise UsageError("page_token: of another request: query, filters and search options must stay")
    if request.offset:
        raise UsageError(f"offset: {request.offset} beside a page_token, which says where to go on")
    turned = replace(request, shown=page.shown)
    if turned.before + turned.k > limits.k:
        raise UsageError(f"k: {turned.k} after {turned.before} results leaves the first {limits.k}")
    return turned
