"""What readers of other people's formats may raise of a file that is damaged or not of that format."""

from PIL import Image

# Pillow, of a file that holds no picture.
NO_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
