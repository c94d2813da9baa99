"""What every forked rank has already imported."""

import warnings

warnings.simplefilter("ignore")

import torch  # noqa: E402

import train.run  # noqa: E402, F401

torch.set_num_threads(1)
