"""What every layer shares: parameters and gradients by name, saving, checks of the inputs.

A layer computes; it keeps no state between calls. What a backward pass needs lives in the pullback
that `attnc.vjp` returns, so that a forward pass for validation disturbs no training.
"""

import inspect
import os
import threading

import numpy as np

from ..arrays import contiguous, integer_array, real_array

# The lock of all gradients. One for the process, not one a layer: tied layers share their arrays,
# and a lock in a layer could be neither copied nor pickled. It is held for one addition, which the
# memory bounds anyway. A fork waits for it, so that no child inherits it taken.
_ADDING = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_ADDING.acquire, after_in_parent=_ADDING.release, after_in_child=_ADDING.release
    )


class Arrays(dict):
    """Arrays by name. Writing an entry writes *into* its array.

    The arrays are shared by a layer, the layers around it and the optimiser; writing in place means
    that all of them see it. So ``layer.parameters["weight"] = w`` and
    ``layer.gradients["weight"] += dw`` do what they say.
    """

    def __setitem__(self, name, value):
        array = self[name]
        if value is not array:
            if np.shape(value) != array.shape:
                raise ValueError(
                    f"parameters: {name} must have shape {array.shape}, got {np.shape(value)}"
                )
            array[...] = value

    def __repr__(self):
        entries = ", ".join(f"{name} {array.shape}" for name, array in self.items())
        return f"<{entries}>" if entries else "<none>"


class Layer:
    """Base of the layers: something with parameters that `attnc.vjp` can differentiate.

    To write a layer: call ``super().__init__(dtype)``, keep each constructor argument as an
    attribute of the same name, add arrays with `add_parameter` and layers as plain attributes (or
    lists of layers), then write ``_vjp(*inputs, **options)``, which returns the output and a
    pullback. The pullback adds the gradients of the parameters by `add_gradient`, so that it may be
    called from several threads, and returns `attnc.gradients.Gradients` of the inputs.

    Parameters
    ----------
    dtype : float32 or float64
        Type of the parameters; real inputs are cast to it.

    Examples
    --------
    >>> class Scale(Layer):
    ...     def __init__(self, size, dtype="float32"):
    ...         super().__init__(dtype)
    ...         self.size = size
    ...         self.add_parameter("factor", np.ones(size))
    ...
    ...     def _vjp(self, x):
    ...         factor = self.parameters["factor"]
    ...
    ...         def pullback(dy):
    ...             self.add_gradient("factor", (x * dy).reshape(-1, self.size).sum(0))
    ...             return Gradients({"x": dy * factor})
    ...         return x * factor, pullback
    """

    def __init__(self, dtype="float32"):
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"{type(self).__name__}: dtype must be float32 or float64, got {dtype}")
        self.dtype = dtype
        self._parameters = {}
        self._gradients = {}

    def add_parameter(self, name, value):
        """Add the parameter `name`, `value` in the layer's dtype, and its gradient, zero."""
        value = np.array(value, self.dtype)
        self._parameters[name] = value
        self._gradients[name] = np.zeros_like(value)

    def _layers(self):
        """(name, layer) of every layer directly inside this one, in order of assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for index, item in enumerate(value):
                    if isinstance(item, Layer):
                        yield f"{name}.{index}", item

    def _collect(self, kind):
        arrays = Arrays(getattr(self, kind))
        for name, layer in self._layers():
            for inner, array in layer._collect(kind).items():
                dict.__setitem__(arrays, f"{name}.{inner}", array)
        return arrays

    @property
    def parameters(self):
        """dict of str to ndarray: the parameters; those of layers inside have dotted names."""
        return self._collect("_parameters")

    @property
    def gradients(self):
        """dict of str to ndarray: the gradients that pullbacks have added up since `zero_grad`."""
        return self._collect("_gradients")

    def add_gradient(self, name, d, rows=None):
        """Add `d` to the gradient of the parameter `name`: the one safe way from a pullback.

        Pullbacks may run in several threads: every addition is whole, and none is lost, also where
        layers share an array. They come in the order in which the threads arrive; as sums of floats
        depend on their order, the last bits may differ from run to run.
        (``layer.gradients[name] += d`` is for one thread alone.)

        Parameters
        ----------
        name : str
            A name in `gradients`, dotted for layers inside.
        d : array_like
            Of the parameter's shape; with `rows`, of the shape of those rows.
        rows : array_like of int, shape (n,), optional
            The rows of the parameter that `d` holds; the others get nothing. A row that is there
            several times adds up.

        Raises
        ------
        KeyError
            If there is no such parameter.
        TypeError
            If `d` is not real or `rows` are not integers.
        ValueError
            If the shape of `d` does not fit, or a row is not there.
        """
        where = f"{type(self).__name__}.add_gradient"
        gradient = self._gradients.get(name)
        if gradient is None:
            gradient = self.gradients.get(name)
        if gradient is None:
            raise KeyError(f"{where}: name must be one of {list(self.gradients)}, got {name!r}")
        d = real_array(where, name, d)
        shape = gradient.shape
        if rows is not None:
            if gradient.ndim == 0:
                raise ValueError(f"{where}: rows must be None for {name}, a number, got {rows}")
            rows = integer_array(where, "rows", rows)
            if rows.ndim != 1:
                raise ValueError(f"{where}: rows must have shape (n,), got {rows.shape}")
            if rows.size and not 0 <= rows.min() <= rows.max() < shape[0]:
                raise ValueError(
                    f"{where}: rows must lie in 0..{shape[0] - 1}, got {rows.min()}..{rows.max()}"
                )
            rows = rows.astype(np.intp, copy=False)
            distinct = len(np.unique(rows)) == len(rows)
            shape = (len(rows), *shape[1:])
        if d.shape != shape:
            raise ValueError(f"{where}: {name} must have shape {shape}, got {d.shape}")
        with _ADDING, np.errstate(all="ignore"):
            if rows is None:
                gradient += d
            elif distinct:
                gradient[rows] += d
            else:
                np.add.at(gradient, rows, d)

    def zero_grad(self):
        """Set every gradient to zero.

        What a pullback adds at the same time in another thread may come before or after: wait for
        the pullbacks first.
        """
        gradients = self.gradients.values()
        with _ADDING:
            for gradient in gradients:
                gradient.fill(0)

    def state_dict(self):
        """Copies of the parameters by name.

        Returns
        -------
        dict of str to ndarray
        """
        return {name: array.copy() for name, array in self.parameters.items()}

    def load_state_dict(self, state):
        """Set every parameter from `state`, casting to the layer's dtype.

        Parameters
        ----------
        state : mapping of str to array_like
            Exactly the names and shapes of `parameters`.

        Raises
        ------
        ValueError
            If names are missing or unexpected or shapes differ; all of them are listed, and the
            layer is unchanged.
        """
        parameters = self.parameters
        copy_arrays(f"{type(self).__name__}.load_state_dict", parameters, state)

    def save(self, path):
        """Write the parameters to `path`, an ``.npz`` file without pickles.

        The file appears whole or not at all: an interrupt leaves an earlier one as it was.
        """
        temporary = f"{os.fspath(path)}.part"
        with open(temporary, "wb") as file:
            np.savez(file, **self.parameters)
        os.replace(temporary, path)

    def load(self, path):
        """Set the parameters from `path`, a file that `save` wrote, and return the layer.

        Raises
        ------
        ValueError
            If the file holds other names or shapes (see `load_state_dict`), or pickles.
        """
        with np.load(path, allow_pickle=False) as file:
            self.load_state_dict(file)
        return self

    def __repr__(self):
        """The constructor call that makes a layer like this one (with fresh parameters)."""
        arguments = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if name == "rng":
                continue
            value = getattr(self, name)
            default = parameter.default
            if name == "dtype":
                value, default = value.name, np.dtype(default).name
            if value != default or parameter.default is parameter.empty:
                arguments.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __call__(self, *inputs, **options):
        """The output alone. Computes and remembers nothing; for gradients use `attnc.vjp`."""
        return self._vjp(*inputs, **options)[0]

    def _vjp(self, *inputs, **options):
        """Output and pullback, for `attnc.vjp`."""
        raise NotImplementedError(f"{type(self).__name__}: _vjp is not written")

    def _error(self, text, kind=ValueError):
        return kind(f"{type(self).__name__}: {text}")

    def _real(self, name, value, *shape):
        """`value` as an array of the layer's dtype and `shape` (ints match, strings are free)."""
        array = real_array(type(self).__name__, name, value)
        self._check_shape(name, array.shape, shape)
        return contiguous(array, self.dtype)

    def _check_shape(self, name, got, shape):
        tail = shape[1:] if shape[0] is Ellipsis else shape
        fits = len(got) >= len(tail) if shape[0] is Ellipsis else len(got) == len(tail)
        if fits and all(
            isinstance(want, str) or want == size
            for want, size in zip(tail, got[len(got) - len(tail) :], strict=True)
        ):
            return
        wanted = ", ".join("..." if size is Ellipsis else str(size) for size in shape)
        fix = f" (one sequence is {name}[None])" if len(got) == len(shape) - 1 > 0 else ""
        raise self._error(f"{name} must have shape ({wanted}), got {got}{fix}")

    def _incoming(self, name, value, shape):
        """An incoming gradient in the layer's dtype; None stands for zeros and stays None."""
        return None if value is None else self._real(name, value, *shape)


def copy_arrays(where, arrays, state):
    """Copy `state` into `arrays` if all names and shapes agree; else change nothing and raise."""
    names = set(state)
    faults = {
        "missing": [name for name in arrays if name not in names],
        "unexpected": sorted(names - set(arrays)),
        "misshapen": [
            f"{name} {np.shape(state[name])} instead of {array.shape}"
            for name, array in arrays.items()
            if name in names and np.shape(state[name]) != array.shape
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names)
        raise ValueError(
            f"{where}: state must hold exactly the names and shapes of the parameters, got {listed}"
        )
    for name, array in arrays.items():
        array[...] = state[name]


def positive(layer, **sizes):
    """Check that each size is an integer of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise layer._error(f"{name} must be a positive integer, got {size!r}")


def glorot(rng, rows, columns, blocks=1):
    """Uniform weights (rows, blocks * columns) after Glorot and Bengio (2010), eq. 16.

    `blocks` is the number of separate matrices side by side, such as the gates of a cell.
    """
    bound = np.sqrt(6 / max(rows + columns, 1))
    return rng.uniform(-bound, bound, (rows, blocks * columns))


def orthogonal(rng, size, blocks=1):
    """`blocks` random orthogonal matrices side by side (Saxe et al. 2014): they keep lengths."""
    matrices = []
    for _ in range(blocks):
        q, r = np.linalg.qr(rng.standard_normal((size, size)))
        matrices.append(q * np.sign(np.diag(r)))
    return np.concatenate(matrices, axis=1)
