"""What Pillow raises on a file that holds no picture, or one whose header promises what cannot be."""

from PIL import Image

from common.base.errors import DAMAGED

NO_PICTURE = (*DAMAGED, Image.DecompressionBombError)
