"""How a command reaches the service: the shared options turned into a connection."""

from __future__ import annotations

from ..handler import discovery, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any


def connect(options: argparse.Namespace) -> wire.Connection:
    """Return a proven connection; raises `NotRunning` where no service is there."""
    return discovery.connect(
        options.home,
        url=options.url,
        host=options.host,
        port=options.port,
        token=options.token,
    )


def pages(
    connection: wire.Connection, query: dict[str, Any], limit: int | None
) -> Iterator[dict[str, Any]]:
    """Yield jobs page by page, at most `limit` of them."""
    left = limit
    cursor = None
    while True:
        size = 500 if left is None else min(left, 500)
        page = connection.request(
            "GET", "/api/jobs", query={**query, "limit": size, "cursor": cursor}
        )
        yield from page["items"]
        cursor = page.get("next_cursor")
        if left is not None:
            left -= len(page["items"])
        if cursor is None or (left is not None and left <= 0) or not page["items"]:
            return
