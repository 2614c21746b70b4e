"""Calls of the handlers as XLA makes them, by ctypes: of what no program of JAX has in it.

defines: call_handler
"""

import ctypes as c

import numpy as np

from attnc import _core

DTYPES = {"bool": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "uint8": 6, "uint16": 7,
          "uint32": 8, "uint64": 9, "float16": 10, "float32": 11, "float64": 12}  # fmt: skip
EXECUTE, BUFFER, ARRAY, SCALAR = 3, 1, 1, 3


def struct(name, **fields):
    return type(name, (c.Structure,), {"_fields_": list(fields.items())})


HEAD = {"size_of_struct": c.c_size_t, "extensions": c.c_void_p}
Buffer = struct("Buffer", **HEAD, dtype=c.c_int, data=c.c_void_p, rank=c.c_int64, dims=c.c_void_p)
Span = struct("Span", data=c.c_char_p, size=c.c_size_t)
Scalar = struct("Scalar", dtype=c.c_int, value=c.c_void_p)
Array = struct("Array", dtype=c.c_int, size=c.c_size_t, data=c.c_void_p)
Values = struct("Values", **HEAD, size=c.c_int64, types=c.c_void_p, values=c.c_void_p)
Attributes = struct("Attributes", **HEAD, size=c.c_int64, types=c.c_void_p, names=c.c_void_p,
                    values=c.c_void_p)  # fmt: skip
Failure = struct("Failure", **HEAD, message=c.c_char_p, code=c.c_int)
Create = c.CFUNCTYPE(c.c_void_p, c.POINTER(Failure))
# As long as what is set: there is no pool of threads then.
Api = struct("Api", **HEAD, version=c.c_byte * 24, internal=c.c_void_p, create=Create)
Call = struct("Call", **HEAD, api=c.c_void_p, context=c.c_void_p, stage=c.c_int,
              arguments=Values, results=Values, attributes=Attributes)  # fmt: skip


def call_handler(name, arguments, results, **attributes):
    """Let a handler write its results.

    Parameters
    ----------
    name : str
    arguments, results : list of (ndarray or tuple)
        An array; or a shape and a dtype, of what has no memory.
    **attributes
        A NumPy array of int64, aligned or not, or an int.

    Returns
    -------
    str or None
        What the handler says went wrong.
    """
    alive, said = [], []

    def keep(x):
        alive.append(x)
        return c.addressof(x) if isinstance(x, (c.Structure, c.Array)) else x

    def pointers(items):
        return keep((c.c_void_p * len(items))(*items))

    def buffer(x):
        shape, dtype = (x.shape, x.dtype) if isinstance(x, np.ndarray) else x
        data = x.ctypes.data if isinstance(x, np.ndarray) else None
        dims = keep((c.c_int64 * len(shape))(*shape))
        return keep(Buffer(c.sizeof(Buffer), None, DTYPES[str(dtype)], data, len(shape), dims))

    def values(items):
        types = keep((c.c_int * len(items))(*[BUFFER] * len(items)))
        return Values(c.sizeof(Values), None, len(items), types, pointers(list(map(buffer, items))))

    def attribute(x):
        if isinstance(x, int):
            return keep(Scalar(DTYPES["int64"], keep((c.c_int64 * 1)(x))))
        return keep(Array(DTYPES[str(x.dtype)], x.size, x.ctypes.data))

    def create(failure):
        said.append(failure.contents.message.decode())
        return 1  # any address but NULL

    names = [keep(Span(k.encode(), len(k))) for k in attributes]
    types = [SCALAR if isinstance(x, int) else ARRAY for x in attributes.values()]
    api = Api(Api.create.offset + c.sizeof(c.c_void_p), create=Create(create))
    call = Call(
        c.sizeof(Call), None, c.addressof(api), None, EXECUTE, values(arguments), values(results),
        Attributes(c.sizeof(Attributes), None, len(names), keep((c.c_int * len(types))(*types)),
                   pointers(names), pointers([attribute(x) for x in attributes.values()])),
    )  # fmt: skip
    address = c.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = c.c_void_p, [c.py_object, c.c_char_p]
    handler = c.CFUNCTYPE(c.c_void_p, c.c_void_p)(
        address(_core.jax_handlers()[name], b"xla._CUSTOM_CALL_TARGET")
    )
    failed = handler(c.addressof(call))
    assert bool(failed) == bool(said)
    return said[0] if said else None
