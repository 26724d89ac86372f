"""A prepared item as one file whose tensors are mapped into memory when it is read.

The file is torch's own archive. Reading maps it copy-on-write: pages are read when they are touched, the
kernel's page cache is the memory, all processes of a host share it, and what is written into a tensor stays
in its process. Items are taken apart before, since torch's safe loader knows neither MetaTensor nor NumPy
arrays; nothing in a file can name code to be run.
"""

from __future__ import annotations

import errno
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import torch
from monai.data import MetaTensor

FORMAT = 1
"""Changes with what `encode` makes, so that files of other times are not misread."""

_PLAIN = (bool, int, float, str, bytes, torch.dtype, torch.device, torch.Size, type(None))


class UnkeepableError(Exception):
    """An item has something in it that a file cannot hold; names the type."""


def encode(value: Any) -> Any:
    """Takes an item apart into what torch's safe loader knows.

    Raises:
        UnkeepableError: It has more in it than tensors, arrays, numbers, texts and collections of them.
    """
    if isinstance(value, MetaTensor):
        if value.pending_operations:
            msg = "a MetaTensor with pending operations"
            raise UnkeepableError(msg)
        return ("meta", _own(value.as_tensor()), encode(value.meta), encode(value.applied_operations))
    if type(value) is torch.Tensor:
        return ("tensor", _own(value))
    # Names of MONAI's enumerations are texts that equal their values.
    if isinstance(value, str):
        return ("plain", str.__str__(value) if type(value) is str else str(getattr(value, "value", value)))
    if type(value) in _PLAIN:
        return ("plain", value)
    if isinstance(value, np.ndarray | np.generic):
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        try:
            return (kind, torch.from_numpy(np.array(value, order="C")))
        # ValueError: the other byte order.
        except (TypeError, ValueError) as error:
            msg = f"an array of {value.dtype}"
            raise UnkeepableError(msg) from error
    if isinstance(value, Mapping):
        return ("mapping", [(encode(key), encode(one)) for key, one in value.items()])
    if type(value) in (list, tuple):
        return (type(value).__name__, [encode(one) for one in value])
    msg = f"a {type(value).__module__}.{type(value).__qualname__}"
    raise UnkeepableError(msg)


def decode(value: Any) -> Any:
    """Puts together again what `encode` took apart."""
    kind, content, *rest = value
    match kind:
        case "meta":
            meta, operations = rest
            return MetaTensor(content, meta=decode(meta), applied_operations=decode(operations))
        case "array":
            return content.numpy()
        case "scalar":
            return content.numpy()[()]
        case "mapping":
            return {decode(key): decode(one) for key, one in content}
        case "list":
            return [decode(one) for one in content]
        case "tuple":
            return tuple(decode(one) for one in content)
    return content


def size_of(encoded: Any) -> int:
    """Bytes of the tensors in an encoded item, which is about the size of its file."""
    if isinstance(encoded, torch.Tensor):
        return encoded.numel() * encoded.element_size()
    if isinstance(encoded, list | tuple):
        return sum(size_of(one) for one in encoded)
    return 0


def write(file: BinaryIO, encoded: Any, *, key: str) -> None:
    """Writes an encoded item.

    Raises:
        OSError: The file cannot take it, as when the disk is full.
    """
    careful = _CarefulFile(file)
    torch.save({"format": FORMAT, "key": key, "item": encoded}, cast("IO[bytes]", careful))
    if careful.error is not None:
        raise careful.error
    file.flush()


def read(file: Path, *, key: str, verify: bool) -> Any | None:
    """The item of a key; None when the file is missing, torn, damaged or of something else.

    Args:
        file: What `write` wrote.
        key: What it must have been written with.
        verify: Compare the checksums of all that is in the file, which reads it once from end to end.
    """
    try:
        if verify:
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:
                    return None
        document = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        if document["format"] != FORMAT or document["key"] != key:
            return None
        return decode(document["item"])
    except FileNotFoundError:
        return None
    # Damage shows itself in any way, and every damaged file is as good as none: the case is prepared again.
    except Exception:  # noqa: BLE001 - see above
        return None


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in a storage of its own: a file holds whole storages, and a patch may be a view of one."""
    if tensor.layout is not torch.strided:
        msg = f"a tensor of layout {tensor.layout}"
        raise UnkeepableError(msg)
    tensor = tensor.detach()
    if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size():
        return tensor
    return tensor.clone(memory_format=torch.preserve_format)


class _CarefulFile(io.RawIOBase):
    """Notes the first error and lets torch finish: its writer does not survive an error in the middle."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.error is None:
            try:
                rest = memoryview(data).cast("B")
                while rest.nbytes:
                    written = self._file.write(rest)
                    if not written:
                        raise OSError(errno.EIO, "nothing was written")
                    rest = rest[written:]
            except OSError as error:
                self.error = error
        return size
