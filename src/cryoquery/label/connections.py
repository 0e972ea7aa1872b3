"""Connections to the server: strangers may hold a few for a moment, so that people find room."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_STRANGERS = 1200
"""Beyond that the stranger who came first has to go."""
STRANGER_SECONDS = 20.0
"""A connection is closed that has not shown the signature of a session by then; browsers open a new one."""

Peer = tuple[str, int] | None


class Connections:
    """Those of strangers, by the peer's address, the oldest first."""

    def __init__(self, most: int = MOST_STRANGERS, seconds: float = STRANGER_SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._strangers: OrderedDict[Peer, tuple[asyncio.Transport, asyncio.TimerHandle]] = OrderedDict()

    def come(self, peer: Peer, transport: asyncio.Transport) -> None:
        """Take a new connection in; without a peer it came through a socket that is only its owner's."""
        if peer is None:
            return
        timer = asyncio.get_running_loop().call_later(self._seconds, self._close, peer)
        self._strangers[peer] = (transport, timer)
        if len(self._strangers) > self._most:
            self._close(next(iter(self._strangers)))

    def know(self, peer: Peer) -> None:
        """The connection from ``peer`` has shown a session, or has ended."""
        _, timer = self._strangers.pop(peer, (None, None))
        if timer is not None:
            timer.cancel()

    def _close(self, peer: Peer) -> None:
        transport, _ = self._strangers[peer]
        self.know(peer)
        transport.abort()

    @property
    def protocol(self) -> type[asyncio.Protocol]:
        """HTTP whose connections are counted here, for uvicorn."""
        connections = self

        class Counted(H11Protocol):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                connections.come(self.client, transport)

            def connection_lost(self, exc: Exception | None) -> None:
                connections.know(self.client)
                super().connection_lost(exc)

        return Counted
