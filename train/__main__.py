"""`python -m train`."""

import sys

from train.main import cli

sys.exit(cli())
