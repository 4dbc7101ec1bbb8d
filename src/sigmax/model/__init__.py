"""A trained model: encode, match, save, load."""

from sigmax.model.dual_encoder import DualEncoder, load
from sigmax.model.folder import check_place
from sigmax.model.matches import Match, Matches, Offer, Rated
from sigmax.model.replay import Features

__all__ = ["DualEncoder", "Features", "Match", "Matches", "Offer", "Rated", "check_place", "load"]
