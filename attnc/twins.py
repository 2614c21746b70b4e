"""A copy of a layer with other arrays in the place of its parameters, which shares all else.

Made anew are the layers, and what leads to them: lists, tuples, dicts, bound methods, partial
functions and objects of classes in Python. The rest need not be small, nor such that it can be
copied: data, locks, files, modules.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from attnc.dual_calls import built_like
from attnc.layers.base import Layer

__all__ = ["twin_of"]


def twin_of(layer: Layer, replaced: Mapping[int, Any]) -> Layer:
    """The copy of a layer.

    Parameters
    ----------
    layer : Layer
    replaced : mapping
        What stands for an array, by the ``id`` of the array.

    Returns
    -------
    Layer
    """
    twin: Layer = _rebuilt(layer, _to_rebuild(layer, replaced), dict(replaced))
    return twin


_LEAVES = frozenset({str, bytes, int, float, bool, type(None)})  # most of what long lists hold


def _inside(x: Any) -> list[Any]:
    """What x holds, where it is of a kind that leads to layers."""
    if isinstance(x, list | tuple):
        return list(x)
    if isinstance(x, dict):
        return list(x.values())
    if isinstance(x, types.MethodType):
        return [x.__self__]
    if isinstance(x, functools.partial):
        return [x.func, x.args, x.keywords]
    return list(vars(x).values()) if _is_plain(x) else []


def _is_plain(x: Any) -> bool:
    """Whether it is all in its attributes: no class, no module, nothing that is in C."""
    return isinstance(x, Layer) or (type(x).__new__ is object.__new__ and hasattr(x, "__dict__"))


def _to_rebuild(layer: Layer, replaced: Mapping[int, Any]) -> set[int]:
    """The ids of all that holds a layer or what is replaced, in whatever depth."""
    holders: dict[int, list[int]] = defaultdict(list)
    seen, todo, sources = {id(layer)}, [layer], [id(layer), *replaced]
    while todo:
        x = todo.pop()
        for item in _inside(x):
            if type(item) in _LEAVES:
                continue
            holders[id(item)].append(id(x))
            if id(item) not in seen:
                seen.add(id(item))
                todo.append(item)
                if isinstance(item, Layer):
                    sources.append(id(item))
    found: set[int] = set()
    while sources:
        one = sources.pop()
        if one not in found:
            found.add(one)
            sources += holders[one]
    return found


def _rebuilt(x: Any, which: set[int], done: dict[int, Any]) -> Any:
    """x, or what stands for it; the same thing by one thing."""
    if id(x) in done:
        return done[id(x)]
    if id(x) not in which:
        return x
    if isinstance(x, tuple):
        return built_like(x, [_rebuilt(item, which, done) for item in x])
    if isinstance(x, types.MethodType):
        return types.MethodType(x.__func__, _rebuilt(x.__self__, which, done))
    if isinstance(x, functools.partial):
        function, args, keywords = (_rebuilt(item, which, done) for item in _inside(x))
        return functools.partial(function, *args, **keywords)
    new: Any
    if isinstance(x, list):
        new = done[id(x)] = copy.copy(x)
        list.__setitem__(new, slice(None), [_rebuilt(item, which, done) for item in x])
    elif isinstance(x, dict):
        new = done[id(x)] = copy.copy(x)
        for key, item in x.items():
            dict.__setitem__(new, key, _rebuilt(item, which, done))
    else:
        new = done[id(x)] = object.__new__(type(x))
        vars(new).update({name: _rebuilt(item, which, done) for name, item in vars(x).items()})
    return new
