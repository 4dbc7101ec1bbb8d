from .dual_encoder import DualEncoder as DualEncoder
from .dual_encoder import load as load
from .folder import check_place as check_place
from .matches import Match as Match
from .matches import Matches as Matches
from .matches import Offer as Offer
from .matches import Rated as Rated
from .replay import Features as Features
