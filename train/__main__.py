"""`python -m train`."""

import sys

from train.fast_exit import end_fast
from train.main import cli

code = cli()
end_fast(code)
sys.exit(code)
