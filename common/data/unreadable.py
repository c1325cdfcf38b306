"""What readers of other people's formats may raise of a file that is damaged or not of that format."""

import zlib

from PIL import Image
from scipy.io.matlab import MatReadError

# scipy's `loadmat`, of a file that is no MATLAB file of version 5.
NO_MATLAB_FILE = (OSError, ValueError, TypeError, IndexError, NotImplementedError, MatReadError, zlib.error)
# Pillow, of a file that holds no picture.
NO_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
