from .classifier import SigmaxClassifier as SigmaxClassifier
from .comparison import Budget as Budget
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .data import MatchDataset as MatchDataset
from .data import load_data as load_data
from .errors import DataError as DataError
from .evaluation import Evaluation as Evaluation
from .evaluation import evaluate as evaluate
from .explain import explain as explain
from .explain import explain_logits as explain_logits
from .losses import SigmoidLoss as SigmoidLoss
from .losses import SoftmaxLoss as SoftmaxLoss
from .mining import mine as mine
from .model import DualEncoder as DualEncoder
from .model import load as load
from .positives import Positives as Positives
from .scores import ScoreModel as ScoreModel
from .scores import Scores as Scores
from .scores import calibrate as calibrate
from .training import Settings as Settings
from .training import train as train

__version__: str
