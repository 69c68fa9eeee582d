"""Computes the patch embedding of a vision tower as a matrix product, for all families."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear


class ConvAsLinear(nn.Conv3d):
    """A convolution whose kernel is its stride and its whole input: one matrix product.

    Conv3d is slow for this on some versions of cuDNN (pytorch/pytorch#166122). The parameters keep
    their names and shapes, so checkpoints do too.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, T, H, W) patches of the kernel's size -> (N, out_channels, 1, 1, 1)."""
        assert input.shape[1:] == self.weight.shape[1:], (input.shape, self.weight.shape)
        out = linear(input.flatten(1), self.weight.flatten(1), self.bias)
        return out[:, :, None, None, None]


def use_linear_patch_embedding(tower: Any) -> None:
    """Makes the tower's patch embedding a matrix product, in place."""
    projection = tower.patch_embed.proj
    if not isinstance(projection, ConvAsLinear):
        assert type(projection) is nn.Conv3d, type(projection)
        assert projection.kernel_size == projection.stride, projection
        projection.__class__ = ConvAsLinear
