"""What a calibration becomes where more or fewer pairs are right, or where training saw a sample of the pairs."""

from __future__ import annotations

import math

import scipy

from sigmax.calibration.curves import Calibration

__all__ = ["moved", "sampling_shift"]


def moved(calibration: Calibration, share_from: float, share_to: float) -> Calibration:
    """Move presences to a world with another share of right pairs.

        logit p′ = logit p + logit share_to − logit share_from

    By Bayes' rule, where the two worlds differ in how many pairs are right but not in what the logits and shares of
    right and of wrong pairs look like (Saerens et al. 2002). Where the other world *offers* more or fewer candidates,
    nothing has to be moved for that: shares are among what is offered.

    Args:
        calibration: of any kind; it is not changed.
        share_from: share of right pairs among all where it was fitted, in (0, 1).
        share_to: share of right pairs where it will be used, in (0, 1).

    Raises:
        ValueError: a share outside (0, 1).

    Example:
        >>> from sigmax.calibration import Platt, moved
        >>> Platt(1.0, 0.0).presence([0.0]), moved(Platt(1.0, 0.0), 0.5, 0.1).presence([0.0])
        (array([0.5]), array([0.1]))
    """
    for name, share in (("share_from", share_from), ("share_to", share_to)):
        if not 0 < share < 1:
            raise ValueError(f"Expected `{name}` between 0 and 1, both left out, got {share}.")
    return calibration.shifted(float(scipy.special.logit(share_to) - scipy.special.logit(share_from)))


def sampling_shift(negative_rate: float, positive_rate: float = 1.0) -> float:
    """What to add to the logits of a sigmoid that was trained on a sample of the pairs.

    Keep each wrong pair with probability r₋ and each right one with r₊. Among those kept, by Bayes' rule, a pair that
    is right with probability p is right with

        p′ = p r₊ / (p r₊ + (1 − p) r₋),   logit p′ = logit p + log r₊ − log r₋

    and p′ is what the sigmoid learns. Hence logit p = logit p′ + log r₋ − log r₊, which is at most logit p′ where only
    wrong pairs were left out. `candidate_log_q` = log r₋ does the same inside the loss, candidate by candidate: there
    the logits need no shift any more.

    A shift common to all candidates leaves their shares what they are, so that a calibration with competition takes in
    only a / (a + b) of it: fit one on logits that were shifted, or move presences afterwards with `moved`.

    Args:
        negative_rate: r₋, in (0, 1].
        positive_rate: r₊, in (0, 1].

    Returns:
        log r₋ − log r₊.

    Raises:
        ValueError: a rate outside (0, 1].

    Example:
        >>> from sigmax.calibration import sampling_shift
        >>> round(sampling_shift(0.01), 3)
        -4.605
    """
    for name, rate in (("negative_rate", negative_rate), ("positive_rate", positive_rate)):
        if not 0 < rate <= 1:
            raise ValueError(f"Expected `{name}` above 0 and at most 1, got {rate}.")
    return math.log(negative_rate) - math.log(positive_rate)
