"""What scipy's `loadmat` may raise of a file that is no MATLAB file of version 5, or a damaged one."""

import zlib

from scipy.io.matlab import MatReadError

NO_MATLAB_FILE = (OSError, ValueError, TypeError, IndexError, NotImplementedError, MatReadError, zlib.error)
