from .settings import PRECISIONS as PRECISIONS
from .settings import Settings as Settings
from .train import build_model as build_model
from .train import loss_floor as loss_floor
from .train import train as train
from .trainer import Logged as Logged
from .trainer import Progress as Progress
