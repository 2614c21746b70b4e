"""A convolutional network, which sees all of an image: to compare glimpses with.

LeCun et al. 1998, "Gradient-based learning applied to document recognition".
Defines: `ConvolutionalNetwork`, `Rectify`.
"""

import numpy as np

import attnc
from attnc.functional import relu
from attnc.gradients import Gradients


class Rectify(attnc.Layer):
    """``max(x, 0)``, between the convolutions of a `Sequential`."""

    def _vjp(self, x, *, train=False):
        return attnc.vjp(relu, x)


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
        self.convolutions = [attnc.Convolution2d(*pair, 3, padding=1, **made) for pair in pairs]
        self.halve = attnc.MaxPool2d(2, dtype=dtype)
        self.regions = attnc.ImageRegions(dtype=dtype)
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
        x, back = images[:, None], []
        for layer in self.convolutions:
            x, convolved_back = attnc.vjp(layer, x)
            x, halved_back = attnc.vjp(self.halve, x)
            x = np.maximum(x, 0, out=x)
            back.append((x > 0, halved_back, convolved_back))
        x, regions_back = attnc.vjp(self.regions, x)
        shape = x.shape
        x, hidden_back = attnc.vjp(self.hidden, x.reshape(len(x), -1))
        x = np.maximum(x, 0, out=x)
        logits, output_back = attnc.vjp(self.output, x)

        def pullback(dlogits):
            dx = output_back(dlogits.reshape(logits.shape)).x * (x > 0)
            dx = regions_back(hidden_back(dx).x.reshape(shape)).x
            for positive, halved_back, convolved_back in reversed(back):
                dx = convolved_back(halved_back(dx * positive).x).x
            return Gradients({})

        return logits.reshape(len(logits), self.digits, -1), pullback
