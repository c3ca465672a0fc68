"""Names on the hub: with a network, without one, and with one that loses everything."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import constants

from longspan import network
from longspan.models.hub import on_hub
from longspan.models.huggingface import HuggingFace

if TYPE_CHECKING:
    from pathlib import Path

Place = tuple[str, int]


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_name_without_a_network_is_one_try_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Place] = []

    def no_network(place: Place, *_: object, **__: object) -> Any:
        asked.append(place)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.create_connection", no_network)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(ValueError, match="nobody/no-such-model") as caught:
        HuggingFace(path="nobody/no-such-model").load()
    message = str(caught.value)
    assert message.startswith("model.path = 'nobody/no-such-model': there is no such folder, the")
    assert "the hub cannot be reached (Name or service not known); right would be" in message
    assert asked == [("huggingface.co", 443)]
    assert constants.HF_HUB_OFFLINE is False


def test_a_network_that_loses_everything_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def lost(*_: object, **__: object) -> Any:
        end.wait(20)
        raise TimeoutError("timed out")

    monkeypatch.setattr("socket.create_connection", lost)
    monkeypatch.setattr(network, "PATIENCE_S", 0.05)
    with network.cached_only_without_network() as away:
        assert constants.HF_HUB_OFFLINE
        assert not end.is_set()
    assert away == "no connection within 0.05 seconds"
    end.set()


@pytest.mark.parametrize(
    ("proxies", "door"),
    [
        ({}, ("huggingface.co", 443)),
        ({"https_proxy": "http://proxy.local:3128"}, ("proxy.local", 3128)),
        ({"HTTPS_PROXY": "proxy.local"}, ("proxy.local", 80)),
        ({"all_proxy": "socks5://proxy.local:1080"}, ("proxy.local", 1080)),
        ({"https_proxy": "http://proxy.local", "no_proxy": "hug.co,huggingface.co"},
         ("huggingface.co", 443)),
    ],
)  # fmt: skip
def test_a_connection_to_the_proxy_is_a_network(
    monkeypatch: pytest.MonkeyPatch, proxies: dict[str, str], door: Place
) -> None:
    asked: list[Place] = []

    def connect(place: Place, *_: object, **__: object) -> socket.socket:
        asked.append(place)
        return socket.socket()

    monkeypatch.setattr("socket.create_connection", connect)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with network.cached_only_without_network() as away:
        assert constants.HF_HUB_OFFLINE is False
    assert (away, asked) == (None, [door])


def test_who_sets_the_hubs_patience_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(network, "unreachable", lambda _, patience_s: given.append(patience_s))
    for asked in (constants.DEFAULT_ETAG_TIMEOUT, 30):
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", asked)
        with network.cached_only_without_network():
            pass
    assert given == [network.PATIENCE_S, 30]


def test_who_says_offline_is_not_asked_for_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(network, "unreachable", lambda *_: pytest.fail("asked"))
    with network.cached_only_without_network() as away:
        assert constants.HF_HUB_OFFLINE
    assert away is None


def test_what_is_looked_for_on_the_hub(tmp_path: Path) -> None:
    folders = ("nano", str(tmp_path), str(tmp_path / "none"), "./mine", "~/mine", "a/b/c")
    assert not any(map(on_hub, folders))
    assert on_hub("org/name")
    assert on_hub("gpt2")
