"""Dense layers and convolutions as products of two matrices, the form that a CPU computes fast.

Both are flax's own layers, with the same parameters and names; only the product is another one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from .types import Array


def times(x: Array, kernel: Array) -> Array:
    """x [..., F] times kernel [F, G], as one matrix product of two matrices.

    A CPU computes the gradient for the kernel two to three times faster so than over several axes.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def Dense(features: int, **fields) -> nn.Dense:
    """`nn.Dense` that multiplies by `times`."""
    return nn.Dense(features, dot_general=lambda x, kernel, *_, **__: times(x, kernel), **fields)


def convolve(images: Array, kernel: Array, strides, padding, *args, **fields) -> Array:
    """A convolution [N, H, W, C] with [h, w, C, F] as one product of its patches with the kernel.

    XLA computes the gradient for the kernel forty to seventy times slower on a CPU (10 x 10 images, batch 512).
    """
    height, width, _, filters = kernel.shape
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(images.shape[1:3], (height, width), strides, padding)
    images = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    down, right = ((images.shape[1 + axis] - kernel.shape[axis]) // strides[axis] + 1 for axis in (0, 1))
    patches = [
        images[:, i : i + (down - 1) * strides[0] + 1 : strides[0], j : j + (right - 1) * strides[1] + 1 : strides[1]]
        for i in range(height) for j in range(width)
    ]  # fmt: skip
    return times(jnp.concatenate(patches, -1), kernel.reshape(-1, filters))


def Conv(features: int, size: tuple[int, int], *args, **fields) -> nn.Conv:
    """`nn.Conv`, by `convolve` on a CPU."""
    if jax.default_backend() == "cpu":
        fields["conv_general_dilated"] = convolve
    return nn.Conv(features, size, *args, **fields)
