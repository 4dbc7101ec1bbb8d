from .reader import Reader as Reader
from .reader import Reading as Reading
from .registry import READERS as READERS
from .registry import known_columns as known_columns
from .registry import read as read
from .registry import readers as readers
