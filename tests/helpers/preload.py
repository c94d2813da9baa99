"""What every forked rank has already imported, and once used: a first configuration costs half a second.

torch's optimizers import torch._dynamo, which takes a second, when the first one is made.
"""

import warnings

warnings.simplefilter("ignore")

import torch  # noqa: E402
import torch._dynamo  # noqa: E402

import train.main  # noqa: E402, F401
import train.run  # noqa: E402, F401
from configs.load import load_config  # noqa: E402

torch.set_num_threads(1)
load_config([])
