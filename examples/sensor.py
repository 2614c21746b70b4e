"""What an eye sees of an image at some place: the two sensors of glimpse.py.

`Retina` is that of Mnih et al. 2014 ("Recurrent models of visual attention", section 3.1): squares
around a place, each twice as wide as the one before, all brought to the size of the first. So it
sees sharply in the middle and coarsely around; a gradient of the place there is none.

`GaussianRead` is its soft twin, of Gregor et al. 2015 ("DRAW: a recurrent neural network for image
generation", section 3.2): a grid of Gaussian filters that can be moved and stretched. It looks at
every pixel of the image, however little, and so has a gradient of where it looks.
"""

import numpy as np


class Retina:
    """Squares of width w, 2 w, 4 w ... around a place, each brought down to w x w numbers.

    A number of a square whose pixels are s x s pixels of the image is their sum by s, which varies
    about as much as one of them (their mean would vary less, and be hard to learn from); beyond the
    image all is 0. Sums over rectangles come from a table (Crow 1984, "Summed-area tables for
    texture mapping"), which is made once for all looks at an image.

    Places are (row, column) in -1..1: the middle of the image is (0, 0), its corners are (-1, -1)
    and (1, 1). They are rounded to pixels.
    """

    def __init__(self, width, scales):
        self.width, self.scales = width, scales
        self.values = scales * width**2  # that a look delivers
        self.reach = width * 2 ** (scales - 1)  # pixels from side to side of the widest square

    def products(self, size):
        """None: it only adds."""
        return 0

    def open(self, images):
        """Return the function that takes places (B, 2) to what is seen there, (B, scales, w, w)."""
        count, height, breadth = images.shape
        sums = np.zeros((count, height + 1, breadth + 1), images.dtype)
        np.cumsum(images, axis=1, out=sums[:, 1:, 1:])
        np.cumsum(sums[:, 1:, 1:], axis=2, out=sums[:, 1:, 1:])
        first = np.arange(count)[:, None, None] * (height + 1) * (breadth + 1)

        def look(places):
            middle = pixels(places, images.shape[1:])
            seen = np.empty((count, self.scales, self.width, self.width), images.dtype)
            for n in range(self.scales):
                side = 2**n  # of a coarse pixel
                edges = side * np.arange(self.width + 1) - side * self.width // 2
                rows = (middle[:, :1] + edges).clip(0, height)  # beyond it nothing is added
                columns = (middle[:, 1:] + edges).clip(0, breadth)
                corners = sums.take(first + rows[:, :, None] * (breadth + 1) + columns[:, None])
                strips = corners[:, 1:] - corners[:, :-1]
                seen[:, n] = (strips[:, :, 1:] - strips[:, :, :-1]) / side
            return seen

        return look


def pixels(places, shape):
    """Places in -1..1 as numbers of rows and columns, rounded."""
    return np.rint((places + 1) / 2 * shape).astype(np.intp)


def regions(size, width):
    """The places (N, 2) of a grid of squares of this width that covers an image of this size."""
    count = -(-size // width)
    middles = (np.arange(count) + 0.5) / count * 2 - 1
    return np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)


class GaussianRead:
    """N x N Gaussian filters, on a grid with a place, a distance and a deviation of its own.

    ::

        middle of filter i    m_i = c + (i - (N - 1) / 2) d
        its weights           F_ia = exp(-(a - m_i)^2 / (2 s^2)) / sum over the pixels a
        what it reads         seen = g F^rows image (F^columns)^T

    Where it reads is (B, 5): place, row and column, in -1..1 as for the retina; the logarithm of d
    in parts of an even cover of the image (0: the grid covers it, -1: a third of it in each
    direction); that of s in parts of d / 2; and that of g in parts of the d of an even cover, by
    which what is read varies about as much as a pixel.
    """

    NUMBERS = 5

    def __init__(self, width):
        self.width = width
        self.values = width**2

    def products(self, size):
        """How many numbers are multiplied and added in a read, the weights of the filters aside."""
        return self.width * size * (size + self.width)

    def read(self, images, where):
        """Return what is seen (B, N, N), and the pullback to `where`."""
        size = np.array(images.shape[1:], images.dtype)
        offsets = np.arange(self.width, dtype=images.dtype) - (self.width - 1) / 2
        steps = np.exp(where[:, 2:3]) * size / self.width  # d: (B, 2), for rows and columns
        spreads = np.exp(where[:, 3:4]) * steps / 2
        middles = (where[:, :2] + 1) / 2 * size - 0.5  # pixel 0 has its middle at 0
        filters, kept = [], []
        for axis in range(2):
            grid = middles[:, axis, None] + steps[:, axis, None] * offsets  # (B, N)
            distance = np.arange(size[axis], dtype=images.dtype) - grid[:, :, None]  # (B, N, size)
            exponent = -np.square(distance / spreads[:, axis, None, None]) / 2
            weights = np.exp(exponent - exponent.max(axis=2, keepdims=True))  # none is all 0
            weights /= weights.sum(axis=2, keepdims=True)
            filters.append(weights)
            kept.append((distance, exponent))
        rows, columns = filters
        gains = np.exp(where[:, 4:, None]) * float(np.sqrt(size.prod())) / self.width
        halfway = rows @ images  # (B, N, width of the image)
        seen = gains * (halfway @ columns.transpose(0, 2, 1))

        def pullback(dseen):
            dgains, dseen = (dseen * seen).sum(axis=(1, 2)), dseen * gains
            drows = dseen @ (columns @ images.transpose(0, 2, 1))
            dcolumns = dseen.transpose(0, 2, 1) @ halfway
            dwhere = np.zeros_like(where)
            dwhere[:, 4] = dgains
            for axis, (weights, dweights) in enumerate(((rows, drows), (columns, dcolumns))):
                distance, exponent = kept[axis]
                within = (dweights * weights).sum(axis=2, keepdims=True)
                dexponent = weights * (dweights - within)
                spread = spreads[:, axis]
                dgrid = (dexponent * distance).sum(axis=2) / spread[:, None] ** 2
                dwhere[:, axis] += dgrid.sum(axis=1) * size[axis] / 2
                # In the logarithm of d the distances of the grid grow, and s with them.
                dspread = -2 * (dexponent * exponent).sum(axis=(1, 2))
                dwhere[:, 2] += (dgrid * offsets).sum(axis=1) * steps[:, axis] + dspread
                dwhere[:, 3] += dspread
            return dwhere

        return seen, pullback
