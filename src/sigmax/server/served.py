"""A model that serves: requests wait in a queue, one thread answers all that wait together, newer models replace it."""

from __future__ import annotations

import asyncio
import datetime
import json
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sigmax.calibration.calibrator import DEFAULT_RULE
from sigmax.calibration.rules import CONFIDENCE, Decision
from sigmax.candidates.store import UnavailableError
from sigmax.data.pictures import Query, as_picture
from sigmax.errors import DataError
from sigmax.explain import explain_rated
from sigmax.model.matches import Offer, Rated, answer
from sigmax.report.activations import explanation_words, shifts
from sigmax.server.metrics import Metrics
from sigmax.server.watched import Watched
from sigmax.server.window import Window
from sigmax.watch.drift import sign_of

if TYPE_CHECKING:
    from torch import Tensor

    from sigmax.model.matcher import Matcher
    from sigmax.model.searched import Searched

__all__ = ["ExplainWork", "Full", "Loaded", "MatchWork", "Served", "Work"]

#: Accepted candidates listed in an answer, the best of them; their number is always told.
MAX_ACCEPTED = 100
#: Decisions kept, one for each rule, level and confidence that was asked for.
KEPT_DECISIONS = 256


class Full(Exception):
    """The queue has no room for a request."""


class Work(Protocol):
    """A request in the queue: its queries, and how their ratings become its answer."""

    @property
    def queries(self) -> Sequence[Query]:
        """What is rated."""

    @property
    def exact(self) -> bool:
        """Whether all candidates must be rated, and not only those that an index finds."""

    @property
    def where(self) -> Mapping[str, Any]:
        """What the metadata of candidates in a database must say; empty for all."""

    def answer(self, loaded: Loaded, rated: Iterator[Rated]) -> Any:
        """Make the answer, in the model's thread."""


@dataclass(frozen=True)
class MatchWork:
    """The best candidates for each query, as `DualEncoder.match` finds them."""

    queries: Sequence[Query]
    top_k: int
    rule: str
    confidence: float
    where: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = False

    def answer(self, loaded: Loaded, rated: Iterator[Rated]) -> dict[str, Any]:
        """Return the decision and a result for each query."""
        decision = loaded.decide(self.rule, self.confidence)
        found = []
        for query, one in zip(self.queries, rated, strict=True):
            loaded.count(one)
            found.append(one.matches(query, self.top_k, decision, most_accepted=MAX_ACCEPTED))
        return answer(found)


@dataclass(frozen=True)
class ExplainWork:
    """The activation table of each query, as `sigmax.explain` makes it."""

    queries: Sequence[Query]
    top_k: int
    where: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True

    def answer(self, loaded: Loaded, rated: Iterator[Rated]) -> dict[str, Any]:
        """Return the tables, and what they say in words."""
        explanations = explain_rated(self.queries, list(rated), loaded.model, top_k=self.top_k)
        return {
            "items": [one.as_dict() for one in explanations],
            "shift": shifts(explanations),
            "words": explanation_words(explanations),
        }


class Loaded:
    """A model in memory, with the vectors of its candidates.

    Args:
        place: a model folder, or a file of `sigmax export`.
        window: where what is told of queries is kept for a while; None: nowhere.

    Raises:
        DataError: not a model folder, a model that is damaged, has no candidates or whose logits are not finite.
    """

    def __init__(self, place: Path, window: Window | None = None, **where: Any) -> None:
        self.database = bool(where.get("candidates"))
        self.window = window
        self.since = datetime.datetime.now(tz=datetime.timezone.utc)
        self.model, self.loss_name = _opened(place, where)
        try:
            self.offer = self.model.offer()
            if isinstance(self.offer, Offer):
                self.offer = _on_disk(self.offer)
            # A first query, so that none later waits for what is loaded on use.
            first = as_picture(np.zeros((8, 8), np.uint8)) if self.model.pictures else "a"
            list(self.model.rate([first], self.offer))
            self.decide = lru_cache(KEPT_DECISIONS)(self._decide)
            self._filtered = lru_cache(KEPT_DECISIONS)(self._where)
            self.decide(DEFAULT_RULE)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{place}: cannot be served. {error}") from error

    def count(self, rated: Rated) -> None:
        """Keep for a while what is told of a query without its truth."""
        if self.window is not None and self.model.threshold is not None:
            self.window.add(*sign_of(rated, self.model.threshold))

    def answer(self, works: Sequence[Work]) -> list[Any]:
        """Rate the queries of all works together; an exception stands for the answer of a work that failed."""
        try:
            if len(works) > 1 and any((work.exact, work.where) != (works[0].exact, works[0].where) for work in works):
                return [answer for work in works for answer in self.answer([work])]
            offer = self._offer_for(works[0])
            rated = self.model.rate([query for work in works for query in work.queries], offer)
            return [self._one(work, islice(rated, len(work.queries))) for work in works]
        except UnavailableError as error:
            return [error] * len(works)
        except Exception as error:
            if len(works) == 1:
                return [error]
            return [answer for work in works for answer in self.answer([work])]  # one must not fail the others

    def _offer_for(self, work: Work) -> Offer | Searched:
        if work.exact and self.database:
            raise ValueError("It takes all candidates, and these are in a database. Ask a server of the folder alone.")
        if work.where:
            if not hasattr(self.offer, "where"):
                raise ValueError("`where` asks for metadata, which only candidates in a database have.")
            return self._filtered(json.dumps(work.where, sort_keys=True))
        offer: Offer | Searched = self.model.offer(exact=True) if work.exact else self.offer
        return offer

    def _where(self, where: str) -> Searched:
        offer: Searched = self.offer
        return offer.where(json.loads(where))

    def _one(self, work: Work, rated: Iterator[Rated]) -> Any:
        try:
            return work.answer(self, rated)
        except ValueError as error:  # a rule that this model cannot follow
            return error
        finally:
            deque(rated, maxlen=0)  # the next work's ratings come after

    def _decide(self, rule: str, confidence: float = CONFIDENCE) -> Decision | None:
        return self.model.decide(rule, confidence=confidence)


class Served(Watched):
    """A model folder or exported file under a name: the model in it, a queue, and one thread that answers.

    While the thread answers some requests, others come to wait; it then takes all that wait, up to `max_batch` queries.
    Nothing is delayed for company's sake.

    Args:
        name: by which requests choose it.
        folder: as `sigmax train` makes it; it is never written to.
        max_queue: queries that may wait.
        max_batch: queries answered together, but for one request that has more.
        metrics: where batches are counted.
        place: where candidates are searched, see `sigmax.model.index.load_for_matching`.

    Raises:
        DataError: see `Loaded`.
    """

    kind = "model"
    loaded: Loaded

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        max_queue: int,
        max_batch: int,
        metrics: Metrics,
        place: Mapping[str, Any] | None = None,
    ) -> None:
        self.place = dict(place or {})
        self.max_queue, self.max_batch = max_queue, max_batch
        self.window = Window(name, metrics)
        self._thread = ThreadPoolExecutor(1, f"model {name}")
        super().__init__(name, folder, metrics=metrics)
        self._waiting: dict[asyncio.Future[Any], Work] = {}  # the first comes first
        self._queries = 0
        self._wake = asyncio.Event()

    @property
    def since(self) -> datetime.datetime:
        """When the model that answers was loaded."""
        return self.loaded.since

    async def ask(self, work: Work) -> Any:
        """Wait for the answer of a work.

        Raises:
            Full: too many queries wait already.
        """
        if self._queries + len(work.queries) > self.max_queue:
            raise Full
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = work
        self._count(len(work.queries))
        self._wake.set()
        try:
            return await future
        finally:
            self._leave(future)  # who goes away before the turn comes

    async def run(self) -> None:
        """Answer what waits, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            batch = self._take()
            if not batch:
                self._wake.clear()
                continue
            self.metrics.batches.labels(self.name).observe(sum(len(work.queries) for work in batch.values()))
            answers = await loop.run_in_executor(self._thread, self.loaded.answer, list(batch.values()))
            for future, result in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _signature(self) -> tuple[tuple[str, int, int, int], ...]:
        return _signature(self.folder)

    def _load(self) -> Loaded:
        return Loaded(self.folder, self.window, **self.place)

    def _take_over(self, loaded: Loaded) -> None:
        before = getattr(self, "loaded", None)
        self.loaded = loaded
        self.window.compare_with(loaded.model.calibrator)
        if close := getattr(before and before.offer, "close", None):  # of an index or a database
            self._thread.submit(close)  # after what is being answered

    def _take(self) -> dict[asyncio.Future[Any], Work]:
        """All that wait, up to `max_batch` queries."""
        batch: dict[asyncio.Future[Any], Work] = {}
        size = 0
        for future, work in list(self._waiting.items()):
            size += len(work.queries)
            if batch and size > self.max_batch:
                break
            self._leave(future)
            batch[future] = work
        return batch

    def _leave(self, future: asyncio.Future[Any]) -> None:
        work = self._waiting.pop(future, None)
        if work is not None:
            self._count(-len(work.queries))

    def _count(self, queries: int) -> None:
        self._queries += queries
        self.metrics.waiting.labels(self.name).set(self._queries)


def _opened(place: Path, where: Mapping[str, Any]) -> tuple[Matcher, str]:
    """A model and the name of its loss; PyTorch is imported for a folder alone."""
    if place.is_file():
        if where.get("candidates"):
            raise DataError(f"{place}: an exported model offers the candidates beside it. Serve the folder for others.")
        from sigmax.runtime.onnx_model import load as load_exported

        exported = load_exported(place)
        return exported, exported.loss_name
    from sigmax.model.index import load_for_matching

    model = load_for_matching(place, **where)
    return model, model.loss.objective.name


def _on_disk(offer: Offer) -> Offer:
    """The same offer with its vectors in a file; those of many candidates are mapped already."""
    from sigmax.model.folder import FEW

    if len(offer.candidates) > FEW:
        return offer
    return replace(offer, vectors=replace(offer.vectors, dense=_mapped(offer.vectors.dense.float())))


def _mapped(vectors: Tensor) -> Tensor:
    """The same numbers in a file without a name, which the system may put away and which ends with the process."""
    import torch

    with tempfile.TemporaryFile() as file:
        array = np.memmap(file, np.float32, "w+", shape=tuple(vectors.shape))
    array[:] = vectors.numpy()
    return torch.from_numpy(array)


def _signature(place: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What tells one state of a folder or an exported file from another; empty where there is no model."""
    one_file = place.suffix == ".onnx" and not place.is_dir()
    try:
        paths = [place, place.with_suffix(".npz")] if one_file else sorted(place.rglob("*"))
        named = [(path, path.relative_to(place.parent if one_file else place)) for path in paths]
        # What is being built is hidden.
        found = [(str(name), path.stat()) for path, name in named if not name.parts[0].startswith(".")]
    except OSError:
        return ()
    files = tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in found if S_ISREG(stat.st_mode))
    return files if one_file or "sigmax.json" in {name for name, *_ in files} else ()
