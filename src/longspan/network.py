"""Whether the Hugging Face hub can be had, known before its clients try for half a minute."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 4.0
"""For a connection, of which the system tries to make three in that time; where HF_HUB_ETAG_TIMEOUT
is set, that.
"""


@contextmanager
def cached_only_without_network(*further: Any) -> Iterator[str | None]:
    """Within, the hub's clients look only for what is cached where no connection to it is to be
    had; gives the reason then. `further` are other modules with an HF_HUB_OFFLINE of their own.
    """
    from huggingface_hub import constants

    switches = (constants, *further)
    before = [each.HF_HUB_OFFLINE for each in switches]
    asked = constants.HF_HUB_ETAG_TIMEOUT
    patience_s = PATIENCE_S if asked == constants.DEFAULT_ETAG_TIMEOUT else asked
    away = None if constants.HF_HUB_OFFLINE else unreachable(constants.ENDPOINT, patience_s)
    if away is not None:
        for each in switches:
            each.HF_HUB_OFFLINE = True
    try:
        yield away
    finally:
        for each, value in zip(switches, before, strict=True):
            each.HF_HUB_OFFLINE = value


def unreachable(url: str, patience_s: float) -> str | None:
    """Why no connection to a server, or to the proxy that leads there, is to be had; None where one
    is. That it then answers is not asked: slow is not away.
    """
    outcome: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection(_door(url), timeout=patience_s).close()
        except OSError as error:
            outcome.append(error.strerror or str(error) or type(error).__name__)
        else:
            outcome.append(None)

    # looking up a name has no time limit, and each of a server's addresses has one of its own
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(patience_s)
    return outcome[0] if outcome else f"no connection within {patience_s:g} seconds"


def _door(url: str) -> tuple[str, int]:
    """Host and port of what a client connects to."""
    place = urlsplit(url)
    if not proxy_bypass(place.hostname or ""):
        proxies = getproxies()
        if proxy := proxies.get(place.scheme) or proxies.get("all"):
            place = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = place.port or (443 if place.scheme == "https" else 80)
    return place.hostname or "", port
