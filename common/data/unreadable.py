"""What readers of other people's formats may raise on a file that is damaged or not in that format."""

import struct

from PIL import Image

# Pillow, on a file that holds no picture, or one whose header promises what cannot be.
NO_PICTURE = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, SyntaxError, EOFError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
