"""Small untrained models."""

import contextlib

import numpy as np
import pytest

from sigmax.calibration.calibrator import fit_calibrator
from sigmax.encoders import NgramEmbedding
from sigmax.losses import make_loss
from sigmax.model.dual_encoder import DualEncoder


@contextlib.contextmanager
def stored_beyond(few, *modules):
    """Let these modules store the vectors of more than `few` candidates already."""
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "FEW", few)
        yield


def tiny(candidates=("moon", "sun", "fire"), **given):
    """An untrained model."""
    encoder = NgramEmbedding.fit(["moon light", "sun light", "fire", *candidates], dimension=8)
    loss = make_loss("sigmoid", logit_scale=5.0, logit_bias=-1.0)
    return DualEncoder(encoder, None, loss, candidates=candidates, **given).eval()


def calibrated(**given):
    """An untrained model which was calibrated on made-up logits."""
    model = tiny(**given)
    right = np.random.default_rng(0).random((60, len(model.candidates))) < 0.3
    logits = np.random.default_rng(1).normal(size=right.shape) + 2 * right
    none = None if model.none_vector is None else np.random.default_rng(2).normal(size=60)
    model.calibrator = fit_calibrator(logits, right, model.candidate_ids, none=none, about={"data": "made"})
    return model
