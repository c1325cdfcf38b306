"""What a picture file may raise that holds no picture, or a damaged one."""

from PIL import Image

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
