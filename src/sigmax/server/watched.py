"""What is served of a place, loaded again when the place has changed."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

from sigmax.server.metrics import Metrics

__all__ = ["Watched"]

log = logging.getLogger("sigmax.server")


class Watched(ABC):
    """Something under a name that a folder or a file holds; when that changes, the new one takes over.

    Args:
        name: by which requests choose it.
        folder: where it lies; it is never written to.
        metrics: where it is counted that it was loaded again.
    """

    kind: ClassVar[str]  #: what it is, for messages, such as "model"

    def __init__(self, name: str, folder: Path, *, metrics: Metrics) -> None:
        self.name, self.folder, self.metrics = name, folder, metrics
        self.error: str | None = None  #: why a newer one could not be loaded
        self._seen = self._signature()
        self._take_over(self._load())

    @abstractmethod
    def _signature(self) -> Hashable:
        """What tells one state of the folder from another; empty where there is nothing to load."""

    @abstractmethod
    def _load(self) -> Any:
        """Read what the folder holds, in a thread of its own while the old one answers."""

    @abstractmethod
    def _take_over(self, loaded: Any) -> None:
        """Let what was loaded answer from now on, between two requests."""

    async def watch(self, every: float = 1.0) -> None:
        """Load it again, in the background, when the folder has changed and then stayed as it is for a while.

        Requests are answered by the old one until the new one is there, and by the old one alone if it cannot be
        loaded.
        """
        loaded = before = self._seen
        while True:
            await asyncio.sleep(every)
            now = await asyncio.to_thread(self._signature)
            if now and now == before and now != loaded:
                loaded = now
                await self._reload()
            before = now

    async def _reload(self) -> None:
        try:
            loaded = await asyncio.to_thread(self._load)
        except Exception as error:
            reason = str(error).replace(str(self.folder), self.name)
            self.error = f"The newer {self.kind} could not be loaded: {reason}"
            self.metrics.reloads.labels(self.name, "failed").inc()
            log.error("%s: %s The old one goes on.", self.name, self.error)
            return
        self._take_over(loaded)
        self.error = None
        self.metrics.reloads.labels(self.name, "loaded").inc()
        log.info("%s: a newer %s was loaded.", self.name, self.kind)
