"""PyIceberg's files over the objects of the local S3."""

from __future__ import annotations

import io
from typing import Any

from pyiceberg.io import FileIO, InputFile, OutputFile

from local.athena import objects
from local.athena.objects import Place, Store


class ObjectInput(InputFile):  # type: ignore[misc]  # mypy does not follow PyIceberg
    """An object, read from where it lies on disk."""

    def __init__(self, location: str, *, account_id: str) -> None:
        super().__init__(location)
        self._path = objects.path(Place.of(location), account_id=account_id)

    def __len__(self) -> int:
        return self._path.stat().st_size

    def exists(self) -> bool:
        return self._path.is_file()

    def open(self, seekable: bool = True) -> Any:
        return self._path.open("rb")


class _Upload(io.BytesIO):
    """Becomes an object when it is closed; no object when its writer failed."""

    def __init__(self, output: ObjectOutput, *, new: bool) -> None:
        super().__init__()
        self._output = output
        self._new = new
        self._failed = False

    def __exit__(self, kind: Any, *details: Any) -> None:
        self._failed = kind is not None
        self.close()

    def close(self) -> None:
        if not self.closed and not self._failed:
            self._output.put(self.getvalue(), new=self._new)
        super().close()


class ObjectOutput(OutputFile):  # type: ignore[misc]  # mypy does not follow PyIceberg
    """An object that is to be written."""

    def __init__(self, location: str, *, store: Store, account_id: str) -> None:
        super().__init__(location)
        self._store = store
        self._account_id = account_id
        self._size: int | None = None

    def __len__(self) -> int:
        return self._size if self._size is not None else len(self.to_input_file())

    def exists(self) -> bool:
        return self.to_input_file().exists()

    def to_input_file(self) -> ObjectInput:
        return ObjectInput(self.location, account_id=self._account_id)

    def create(self, overwrite: bool = False) -> Any:
        if not overwrite and self.exists():
            raise FileExistsError(self.location)
        return _Upload(self, new=not overwrite)

    def put(self, body: bytes, *, new: bool) -> None:
        self._store.put(Place.of(self.location), body, new=new)
        self._size = len(body)


class ObjectIO(FileIO):  # type: ignore[misc]  # mypy does not follow PyIceberg
    """Objects of one account. Usable in PyIceberg's threads, which know of no request."""

    def __init__(self, *, store: Store, account_id: str) -> None:
        super().__init__()
        self._store = store
        self._account_id = account_id

    def new_input(self, location: str) -> ObjectInput:
        return ObjectInput(location, account_id=self._account_id)

    def new_output(self, location: str) -> ObjectOutput:
        return ObjectOutput(location, store=self._store, account_id=self._account_id)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        named = location if isinstance(location, str) else location.location
        self._store.delete([Place.of(named)])
