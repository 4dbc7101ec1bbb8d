"""Answers with known presences."""

from sigmax.calibration.rules import Choice, Decision
from sigmax.model.matches import Match, Matches


def matches(*presences, accepted=0, any_right=None, query="a query", top_k=3):
    """The best of candidates with these falling presences; the first of them accepted."""
    best = tuple(
        Match(f"candidate {j}", str(j), 2.0 - j, 0.5, None if any_right is None else presence)
        for j, presence in enumerate(presences)
    )
    threshold = presences[accepted - 1] if accepted else 2.0
    decision = None
    if any_right is not None:
        decision = Decision(Choice("best-f1", None), threshold, False, 0.9, None, None, {})
    return Matches(query, best[:top_k], decision, any_right, best[:accepted])
