"""Which failures leave a process that can go on, and which one that has to be replaced.

An error of a CUDA kernel is sticky: every later call of the process fails with it ("CUDA error: device-side
assert triggered", CUDA Runtime API, cudaErrorAssert and its like). Running out of memory is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.errors import DeviceFailedError, InferenceError, MemoryExhaustedError, ModelInterruptedError

_MEMORY_TYPES = frozenset({"MemoryError", "OutOfMemoryError"})
_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""torch.OutOfMemoryError and CUDA's own text; the CPU's allocator; cuBLAS and cuDNN."""

_DEVICE_TYPES = frozenset({"AcceleratorError"})
"""torch.AcceleratorError, since torch 2.8."""

_DEVICE_TEXTS = (
    "CUDA error",
    "STATUS_EXECUTION_FAILED",
    "STATUS_INTERNAL_ERROR",
    "STATUS_MAPPING_ERROR",
    "STATUS_NOT_INITIALIZED",
)
"""torch's words before the texts of CUDA and cuBLAS, and statuses of cuBLAS and cuDNN."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A failure as it is answered, and whether the process can be trusted after it."""

    error: Exception
    is_trusted: bool


def judge(error: BaseException) -> Verdict:
    """Name a failure of a model. Types are compared by name: the server knows no torch."""
    if not isinstance(error, Exception):
        interrupted = ModelInterruptedError(
            f"the model's code raised {type(error).__name__}, which is meant to end a program; "
            "the container is to be replaced"
        )
        interrupted.__cause__ = error
        return Verdict(error=interrupted, is_trusted=False)
    chain = [] if isinstance(error, InferenceError) else list(_chain(error))
    if any(_is_memory(one) for one in chain):
        exhausted = MemoryExhaustedError(
            "the request needs more memory than the container has: use a larger instance, or a smaller "
            "window or batch in the bundle's inferer"
        )
        exhausted.__cause__ = error
        return Verdict(error=exhausted, is_trusted=True)
    if any(_is_device(one) for one in chain):
        failed = DeviceFailedError(
            "the GPU reported an error after which this process cannot use it; the container is to be "
            "replaced"
        )
        failed.__cause__ = error
        return Verdict(error=failed, is_trusted=False)
    return Verdict(error=error, is_trusted=True)


def _is_memory(error: BaseException) -> bool:
    return type(error).__name__ in _MEMORY_TYPES or _says(error, _MEMORY_TEXTS)


def _is_device(error: BaseException) -> bool:
    return type(error).__name__ in _DEVICE_TYPES or _says(error, _DEVICE_TEXTS)


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    # Only torch's errors: a message of another library may quote anything.
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from: MONAI's Compose raises its own from that of a transform."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
