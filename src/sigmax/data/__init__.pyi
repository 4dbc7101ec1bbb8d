from .batches import Batch as Batch
from .batches import Batches as Batches
from .dataset import MatchDataset as MatchDataset
from .pictures import Advance as Advance
from .sources import BUILTIN as BUILTIN
from .sources import load_data as load_data
