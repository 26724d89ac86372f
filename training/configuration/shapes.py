"""What a bundle's metadata says about the size of the network's input, as one size to try it with.

`spatial_shape` holds numbers, or expressions that stand for several: "*" is any size, and in "16*n" or
"2**p*n" n and p are whole numbers from 1 (MONAI Bundle Specification, "metadata.json File").
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence

SMALLEST = 64
"""An expression stands for its smallest size from here: a network that halves its input five times can take
it.
"""

LARGEST_FACTOR = 512
"""Where the search for n ends."""

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
}


def example_shape(spatial_shape: Sequence[int | str]) -> tuple[int, ...]:
    """A size that the metadata allows, one number an axis.

    Raises:
        ValueError: An entry is neither a number nor such an expression.
    """
    return tuple(_example(entry) for entry in spatial_shape)


def _example(entry: int | str) -> int:
    text = str(entry).strip()
    if text == "*":
        return SMALLEST
    try:
        tree = ast.parse(text, mode="eval").body
        if not any(isinstance(node, ast.Name) for node in ast.walk(tree)):
            return _value(tree, 1)
        sizes = (_value(tree, n) for n in range(1, LARGEST_FACTOR))
        return next(size for size in sizes if size >= SMALLEST)
    except (SyntaxError, StopIteration, TypeError) as error:
        msg = f"spatial_shape has {entry!r}, which is no size"
        raise ValueError(msg) from error


def _value(node: ast.expr, n: int) -> int:
    """The expression for n; p is 1."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name) and node.id in ("n", "p"):
        return n if node.id == "n" else 1
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, n), _value(node.right, n))
    msg = f"{ast.unparse(node)} is no size"
    raise TypeError(msg)
