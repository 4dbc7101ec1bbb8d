"""How much competition counts in a presence, in words."""

from __future__ import annotations

__all__ = ["competition_words"]

#: From which part on, and what is said of it.
_VIEWS = (
    (0.9, "almost only against the others, as a softmax does"),
    (0.6, "mostly against the others, as a softmax does"),
    (0.4, "by itself and against the others about equally"),
    (0.1, "mostly by itself, as a sigmoid does"),
    (0.0, "almost only by itself, as a sigmoid does"),
)


def competition_words(competition: float) -> str:
    """Say what `Calibrator.competition` means.

    Args:
        competition: b / (a + b) of log odds of presence = a · logit + b · log odds of the share + c, from 0 to 1.

    Example:
        >>> competition_words(0.25)
        'competition counts 25%: a candidate is judged mostly by itself, as a sigmoid does'
    """
    view = next(view for least, view in _VIEWS if competition >= least)
    return f"competition counts {competition:.0%}: a candidate is judged {view}"
