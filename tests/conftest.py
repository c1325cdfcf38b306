"""What every test stands on."""

import os
import sys

# Tests that start reproduce.sh use the Python that runs the tests; nothing is installed on their way.
os.environ.setdefault("REPRO_PYTHON", sys.executable)
