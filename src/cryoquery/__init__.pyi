from . import acquisition as acquisition
from . import formats as formats
from .data.dataset import open_dataset as open_dataset
from .experiment.config import ExperimentConfig as ExperimentConfig
from .experiment.config import load_config as load_config
from .experiment.executors import run_experiment as run_experiment
from .network.checkpoint import load_model as load_model
from .network.losses import CombinedLoss as CombinedLoss
from .network.model import AttentionUNet as AttentionUNet
from .picking import load_picker as load_picker
from .picking import metrics as metrics
from .picking import pick_particles as pick_particles
from .report import compare as compare

__version__: str
