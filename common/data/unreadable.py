"""What readers of other people's formats may raise on a file that is damaged or not in that format."""

from PIL import Image

# Pillow, on a file that holds no picture.
NO_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
