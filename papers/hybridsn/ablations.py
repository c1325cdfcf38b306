"""HybridSN without its idea: networks of its own layers and about its size whose convolutions are all 2-D or all 3-D.

They are ours, made to ask what mixing the two kinds gives. The 2D-CNN and the 3D-CNN of Table II are other papers'
networks. On Indian Pines HybridSN has 5,122,176 parameters, 4,770,192 of them in its dense layers, which are the same
in all three networks: the convolutions end in 64 maps of 17x17 here too. Windows, rectifiers, dropout and training are
HybridSN's.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from papers.hybridsn.model import KERNELS_3D, HybridSN, reshape_1

FILTERS_2D = (48, 96, 192)  # six times those of the 3-D convolutions whose places they take
LAST_FILTERS_3D = 4  # on the 16 bands that are left of 30 they make 64 maps, as the 2-D convolution does


class Only2D(HybridSN):
    """Each 3-D convolution becomes a 2-D one that takes the bands as its input maps.

    With as many filters as before, the spectrum would be squeezed into eight maps at once. Six times as many make up
    for the weights lost along the bands: 5,101,504 parameters on Indian Pines, 0.4 % fewer than HybridSN's.
    """

    smallest_bands = 1

    def add_convolutions(self, bands: int) -> int:
        first, second, third = FILTERS_2D
        self.conv2d_1 = nn.Conv2d(bands, first, 3)
        self.conv2d_2 = nn.Conv2d(first, second, 3)
        self.conv2d_3 = nn.Conv2d(second, third, 3)
        self.conv2d_4 = nn.Conv2d(third, 64, 3)
        return 64

    def convolve(self, x: Tensor) -> Tensor:
        x = x.squeeze(1).permute(0, 3, 1, 2)
        for layer in (self.conv2d_1, self.conv2d_2, self.conv2d_3, self.conv2d_4):
            x = F.relu(layer(x), inplace=True)
        return x


class Only3D(HybridSN):
    """The 2-D convolution becomes a fourth 3-D one, 3x3x3, and bands and filters become one axis after it.

    HybridSN's 2-D convolution sees all bands at once, each through weights of its own; this one slides along them, so
    331,840 parameters become 3,460: 4,793,796 on Indian Pines, 6.4 % fewer than HybridSN's.
    """

    smallest_bands = 15  # the fourth convolution takes two bands more

    def add_convolutions(self, bands: int) -> int:
        self.conv3d_1 = nn.Conv3d(1, 8, KERNELS_3D[0])
        self.conv3d_2 = nn.Conv3d(8, 16, KERNELS_3D[1])
        self.conv3d_3 = nn.Conv3d(16, 32, KERNELS_3D[2])
        self.conv3d_4 = nn.Conv3d(32, LAST_FILTERS_3D, KERNELS_3D[2])
        return LAST_FILTERS_3D * (bands - 14)

    def convolve(self, x: Tensor) -> Tensor:
        for layer in (self.conv3d_1, self.conv3d_2, self.conv3d_3, self.conv3d_4):
            x = F.relu(layer(x), inplace=True)
        return reshape_1(x)
