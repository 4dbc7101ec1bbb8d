"""Matcher: what finds the best candidates for queries, whatever makes the logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from sigmax.calibration.calibrator import DEFAULT_RULE
from sigmax.calibration.rules import CONFIDENCE, Choice, Decision
from sigmax.errors import check_least, lookup
from sigmax.metrics.ranking import ORDERS

if TYPE_CHECKING:
    from sigmax.calibration.calibrator import Calibrator
    from sigmax.data.pictures import Item
    from sigmax.encoders.shared_words import TokenCounts
    from sigmax.model.matches import Matches, Rated
    from sigmax.model.searched import Searched

__all__ = ["Matcher"]


class Matcher(ABC):
    """A model that answers: its candidates, what rates them, and what decides; a `DualEncoder` or an `OnnxModel`."""

    pictures: bool = False  #: whether queries are pictures
    calibrator: Calibrator | None  #: logits to presences, P(any) and decisions; None: not calibrated
    lexical: TokenCounts | None  #: what the words that two texts share add; None for nothing
    reranker: Any  #: a second look at the best candidates; None for none
    searched: Searched | None = None  #: where `match` finds candidates; None: it looks at all

    @property
    def threshold(self) -> float | None:
        """Presence from which the default rule accepts; None if the model was not calibrated."""
        return None if self.calibrator is None else self.calibrator.default_threshold

    @abstractmethod
    def as_queries(self, items: Sequence[Any]) -> list[Any]:
        """Check queries, or make them of what stands for them; a ValueError tells of one that is none."""

    @abstractmethod
    def offer(self, *, exact: bool = ...) -> Any:
        """Encode the candidates, for `rate`."""

    @abstractmethod
    def rate(self, queries: Sequence[Any], offer: Any) -> Iterator[Rated]:
        """Rate every candidate of an offer for each query."""

    @overload  # a text is a sequence of texts to a type checker, and here it is one query
    def match(  # type: ignore[overload-overlap]
        self, query: Item, *, top_k: int = ..., rule: str | Choice = ..., confidence: float = ..., order: str = ...
    ) -> Matches: ...
    @overload
    def match(
        self,
        query: Sequence[Item],
        *,
        top_k: int = ...,
        rule: str | Choice = ...,
        confidence: float = ...,
        order: str = ...,
    ) -> list[Matches]: ...
    def match(
        self,
        query: Item | Sequence[Item],
        *,
        top_k: int = 5,
        rule: str | Choice = DEFAULT_RULE,
        confidence: float = CONFIDENCE,
        order: str = "presence",
    ) -> Matches | list[Matches]:
        """Find the best candidates for a text or a picture, or for each of several.

        Args:
            query: one query, or a sequence of them. A picture is a path, its bytes, a PIL image or pixels, see
                `sigmax.data.pictures.as_picture`.
            top_k: how many candidates.
            rule: what is accepted, a name in `sigmax.calibration.rules.RULES` with its level, such as "precision=0.95".
            confidence: confidence level of the rule's promise, over repeated dev splits.
            order: what candidates are ordered by, a name in `sigmax.metrics.ranking.ORDERS`.

        Returns:
            `Matches` for one query, a list of them for several.

        Raises:
            ValueError: an empty text, `top_k` below 1, a model without candidates, a rule that cannot be read or that a
                model without calibration cannot follow.
            UnknownNameError: no such order.
            DataError: a picture that cannot be read; a rule that needs the dev split's record, of a model saved without
                it.
        """
        if isinstance(query, Sequence) and not isinstance(query, str | bytes):
            return self._matches(query, top_k, rule, confidence, order)
        return self._matches([query], top_k, rule, confidence, order)[0]

    def _matches(
        self, queries: Sequence[Item], top_k: int, rule: str | Choice, confidence: float, order: str
    ) -> list[Matches]:
        check_least(1, top_k=top_k)
        if self.searched is not None:
            self.searched.check(top_k)
        lookup(ORDERS, order, "order")
        checked = self.as_queries(queries)
        if not checked:
            return []
        decision = self.decide(rule, confidence=confidence)
        rated = self.rate(checked, self.offer())
        return [one.matches(query, top_k, decision, order=order) for query, one in zip(checked, rated, strict=True)]

    def decide(self, rule: str | Choice = DEFAULT_RULE, *, confidence: float = CONFIDENCE) -> Decision | None:
        """Choose what a rule accepts, see `Calibrator.decide`; None for the default rule without calibration.

        Raises:
            ValueError: a rule that cannot be read or that a model without calibration cannot follow.
            DataError: a rule that needs the dev split's record, of a model saved without it.
        """
        if self.calibrator is not None:
            return self.calibrator.decide(rule, confidence=confidence)
        if str(rule) != DEFAULT_RULE:
            raise ValueError(f"The model was not calibrated, so it cannot accept by {rule}. Try sigmax calibrate.")
        return None
