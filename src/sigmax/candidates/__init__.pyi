from .exact import Exact as Exact
from .faiss_index import FaissIndex as FaissIndex
from .faiss_index import build_index as build_index
from .store import Found as Found
from .store import Sample as Sample
from .store import Store as Store
from .store import UnavailableError as UnavailableError
