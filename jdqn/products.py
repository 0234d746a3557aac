"""Dense layers and convolutions as products of two matrices, the form that a CPU computes fast.

Both are flax's own layers, with the same parameters and names; only the product is another one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from .types import Array

NARROW = 6  # columns of a kernel whose gradient is computed column by column


@jax.custom_vjp
def _times_narrow(x: Array, kernel: Array) -> Array:
    """x [N, F] times a kernel [F, G] of few columns.

    The gradient for the kernel is x transposed times [N, G]: on a CPU G products of a vector with a matrix take half of
    the time of that, and a whole iteration of small networks up to 7 % less. It has no forward mode: `jax.jvp` of a
    network with so few outputs is refused on a CPU.
    """
    return x @ kernel


def _forward(x, kernel):
    return x @ kernel, (x, kernel)


def _backward(kept, gradient):
    x, kernel = kept
    return gradient @ kernel.T, jnp.stack([gradient[:, k] @ x for k in range(kernel.shape[1])], 1)


_times_narrow.defvjp(_forward, _backward)


def times(x: Array, kernel: Array) -> Array:
    """x [..., F] times kernel [F, G], as one matrix product of two matrices.

    A CPU computes the gradient for the kernel two to three times faster so than over several axes.
    """
    narrow = kernel.shape[-1] <= NARROW and jax.default_backend() == "cpu"
    rows = x.reshape(-1, x.shape[-1])
    # A rule of one's own takes no NumPy array that is mapped within a jit, an operation of JAX does.
    product = _times_narrow(rows, jax.lax.optimization_barrier(kernel)) if narrow else rows @ kernel
    return product.reshape(*x.shape[:-1], kernel.shape[-1])


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
