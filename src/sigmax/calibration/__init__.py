"""From logits to presence, any right, and decisions: curves, their fits, and rules with promises."""

from sigmax.calibration.any_right import AnyFit, fit_any, noisy_or
from sigmax.calibration.calibrator import DEFAULT_RULE, Calibrator, fit_calibrator
from sigmax.calibration.curves import (
    Beta,
    Calibration,
    Isotonic,
    Platt,
    PlattCandidate,
    moved,
    sampling_shift,
)
from sigmax.calibration.fits import CALIBRATIONS, Fitted, calibration_from_dict, fit_calibration, fit_platt
from sigmax.calibration.pairs import Pairs
from sigmax.calibration.record import Record
from sigmax.calibration.rules import RULES, Choice, Decision, Rule, decide, parse_rule, threshold_table

__all__ = [
    "CALIBRATIONS",
    "DEFAULT_RULE",
    "RULES",
    "AnyFit",
    "Beta",
    "Calibration",
    "Calibrator",
    "Choice",
    "Decision",
    "Fitted",
    "Isotonic",
    "Pairs",
    "Platt",
    "PlattCandidate",
    "Record",
    "Rule",
    "calibration_from_dict",
    "decide",
    "fit_any",
    "fit_calibration",
    "fit_calibrator",
    "fit_platt",
    "moved",
    "noisy_or",
    "parse_rule",
    "sampling_shift",
    "threshold_table",
]
