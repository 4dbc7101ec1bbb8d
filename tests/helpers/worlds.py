"""Worlds whose truth is known: logits, which pairs are right, and what a rule promises of a calibrator there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from sigmax.calibration.rules import Choice, Decision

#: A level for each rule that the worlds below can reach.
LEVELS = {"precision": 0.7, "recall": 0.8, "contains": 0.85, "false-claims": 0.2, "label-precision": 0.6}


@dataclass(frozen=True)
class World:
    """Candidates with a bias and scale of their own; queries with one right answer, several, or none."""

    name: str
    candidates: int
    single: bool  #: whether a query has one right answer at most
    own: float  #: how much candidates differ

    def draw(self, n: int, seed: object) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(n, m) logits and truth of new queries."""
        nature = np.random.default_rng(7)
        biases, scales = (
            self.own * nature.normal(size=self.candidates),
            np.exp(0.3 * self.own * nature.normal(size=self.candidates)),
        )
        random = np.random.default_rng(seed)
        shape = (n, self.candidates)
        level = 1.5 * random.normal(size=(n, 1))
        truth = 2.2 * random.normal(size=shape)
        if self.single:
            share = np.exp(truth - logsumexp(truth, axis=1, keepdims=True))
            right = share.cumsum(1) > random.random((n, 1))
            right &= right.cumsum(1) == 1
            right &= random.random((n, 1)) < expit(1.5 * level + 1.5)
        else:
            right = random.random(shape) < expit(1.6 * truth - 3.5)
        # What a model sees of it: a logit on a scale of its own, and of each candidate.
        return (truth - biases) / scales + level * self.single + 0.5 * random.normal(size=shape), right


WORLDS = {world.name: world for world in (World("one-label", 8, True, 0.7), World("several-labels", 8, False, 0.7))}


def kept(decision: Decision, presence: NDArray[np.float64], right: NDArray[np.bool_]) -> bool:
    """Whether a promise holds over all queries of a world, of which these are many; candidate j has the id cj."""
    choice: Choice = decision.choice
    assert choice.level is not None
    if choice.name == "label-precision":  # all of them at once
        assert decision.thresholds is not None
        own = {int(name.removeprefix("c")): threshold for name, threshold in decision.thresholds.items()}
        gets = {j: presence[:, j] >= threshold for j, threshold in own.items()}
        return all(not one.any() or right[one, j].mean() >= choice.level for j, one in gets.items())
    accepted = presence >= decision.threshold
    answered, claims = right.any(1), accepted.any(1)
    hits = (accepted & right).sum(1)
    if choice.name == "precision":
        return not claims.any() or bool((hits[claims] / accepted[claims].sum(1)).mean() >= choice.level)
    if choice.name == "recall":
        return bool((hits[answered] / right[answered].sum(1)).mean() >= choice.level)
    if choice.name == "contains":
        return bool((hits[answered] > 0).mean() >= choice.level)
    return bool(claims[~answered].mean() <= choice.level)
