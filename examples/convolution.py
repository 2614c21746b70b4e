"""A convolutional network in plain NumPy, which sees all of an image: to compare glimpses with.

LeCun et al. 1998, "Gradient-based learning applied to document recognition". Images are (B, height,
width, channels). Defines: `Convolution`, `halve`, `ConvolutionalNetwork`.
"""

import numpy as np

import attnc
from attnc.gradients import Gradients


class Convolution(attnc.Layer):
    """Each pixel becomes ``filters`` sums over the 3 x 3 pixels around it; outside all is 0."""

    def __init__(self, channels, filters, rng=None, dtype="float32"):
        super().__init__(dtype)
        self.channels, self.filters = channels, filters
        self.linear = attnc.Linear(9 * channels, filters, rng=rng, dtype=dtype)

    def __call__(self, x):
        return self._vjp(x)[0]

    def _vjp(self, x):
        y, back = attnc.vjp(self.linear, neighbours(x))
        return y, lambda dy: Gradients({"x": neighbours_back(back(dy).x, x.shape)})


def neighbours(x):
    """The 3 x 3 pixels around each pixel, side by side: (B, H, W, 9 channels)."""
    count, height, width, channels = x.shape
    padded = np.zeros((count, height + 2, width + 2, channels), x.dtype)
    padded[:, 1:-1, 1:-1] = x
    found = np.empty((count, height, width, 9, channels), x.dtype)
    for n, (row, column) in enumerate(np.ndindex(3, 3)):
        found[..., n, :] = padded[:, row : row + height, column : column + width]
    return found.reshape(count, height, width, 9 * channels)


def neighbours_back(drows, shape):
    """The gradient of x, of this shape, from that of its `neighbours`."""
    count, height, width, channels = shape
    drows = drows.reshape(count, height, width, 9, channels)
    dpadded = np.zeros((count, height + 2, width + 2, channels), drows.dtype)
    for n, (row, column) in enumerate(np.ndindex(3, 3)):
        dpadded[:, row : row + height, column : column + width] += drows[..., n, :]
    return dpadded[:, 1:-1, 1:-1]


def halve(x):
    """The largest of each 2 x 2 pixels, and the way back: the first of equal ones takes it all."""
    count, height, width, channels = x.shape
    blocks = x.reshape(count, height // 2, 2, width // 2, 2, channels)
    upper = blocks[:, :, 0] >= blocks[:, :, 1]  # (B, H/2, W/2, 2, channels)
    rows = np.where(upper, blocks[:, :, 0], blocks[:, :, 1])
    left = rows[..., 0, :] >= rows[..., 1, :]

    def back(dy):
        drows = np.stack([dy * left, dy * ~left], axis=-2)
        return np.stack([drows * upper, drows * ~upper], axis=2).reshape(x.shape)

    return np.where(left, rows[..., 0, :], rows[..., 1, :]), back


class ConvolutionalNetwork(attnc.Layer):
    """Logits (B, digits, classes): three convolutions, halved and rectified, and a hidden layer.

    Parameters
    ----------
    size : int
        Side of the images, which can be halved three times.
    digits, classes : int
        How many are to be told, and from how many.
    parameter_count : int
        About how many parameters to have: the hidden layer is made as wide as that needs.
    """

    def __init__(self, size, digits, classes, parameter_count, rng=None, dtype="float32"):
        super().__init__(dtype)
        made = {"rng": rng, "dtype": dtype}
        if size % 8:
            raise ValueError(f"the side of an image must be a multiple of 8, got {size}")
        self.size, self.digits, self.filters = size, digits, (1, 16, 32, 32)
        pairs = zip(self.filters, self.filters[1:], strict=False)
        self.convolutions = [Convolution(*pair, **made) for pair in pairs]
        seen = (size // 8) ** 2 * self.filters[-1]
        left = parameter_count - sum(layer.parameter_count for layer in self.convolutions)
        outputs = digits * classes
        width = max(8, round((left - outputs) / (seen + 1 + outputs)))
        self.hidden = attnc.Linear(seen, width, **made)
        self.output = attnc.Linear(width, outputs, **made)

    def products(self, size):
        """How many numbers are multiplied and added for an image of this side."""
        sides = [size // 2**n for n in range(4)]
        pairs = zip(sides, self.filters, self.filters[1:], strict=False)
        convolved = sum(9 * a * b * side**2 for side, a, b in pairs)
        width, outputs = self.output.parameters["weight"].shape
        return convolved + sides[-1] ** 2 * self.filters[-1] * width + width * outputs

    def _vjp(self, images):
        x, back = images[..., None].astype(self.dtype, copy=False), []
        for layer in self.convolutions:
            x, convolved_back = attnc.vjp(layer, x)
            x, halved_back = halve(x)
            x = np.maximum(x, 0, out=x)
            back.append((x > 0, halved_back, convolved_back))
        shape = x.shape
        x, hidden_back = attnc.vjp(self.hidden, x.reshape(len(x), -1))
        x = np.maximum(x, 0, out=x)
        logits, output_back = attnc.vjp(self.output, x)

        def pullback(dlogits):
            dx = output_back(dlogits.reshape(logits.shape)).x * (x > 0)
            dx = hidden_back(dx).x.reshape(shape)
            for positive, halved_back, convolved_back in reversed(back):
                dx = convolved_back(halved_back(dx * positive)).x
            return Gradients({})

        return logits.reshape(len(logits), self.digits, -1), pullback
