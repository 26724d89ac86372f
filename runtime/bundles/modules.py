"""The Python modules that a bundle brings, kept apart from those of every other bundle.

A configuration may name classes of the bundle's own folder (``scripts.networks.net.Net``), and nearly every
bundle calls that folder ``scripts``. Run alone, MONAI finds it in the working directory. In a process that
holds several bundles each must find its own: a bundle's modules stand in ``sys.modules`` under their names
only while that bundle is built or imports something, and are taken out again afterwards. Their code gets an
``__import__`` of its own, so that an import within a function, long after loading, finds the same modules.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, cast

_LOCK = threading.RLock()
"""``sys.modules`` belongs to the process: one bundle at a time changes it."""

_NEVER_OWN = sys.stdlib_module_names | {"healthimaging", "monai", "numpy", "runtime", "torch"}
"""Names that a bundle cannot take over: everything else in the process relies on them."""


class BundleModules:
    """Makes the modules of one bundle importable, for that bundle alone."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.names = _own_names(root)
        """Top-level modules and packages that the bundle brings."""
        self._loaded: dict[str, ModuleType] = {}
        self._depth = 0
        self._builtins = {**vars(builtins), "__import__": self._import}

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Let this bundle's names mean this bundle's modules while the context is open."""
        with _LOCK:
            if self._depth:
                yield
                return
            hidden = self._take_out()
            sys.modules.update(self._loaded)
            sys.meta_path.insert(0, self)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                sys.meta_path.remove(self)
                self._loaded = self._take_out()
                sys.modules.update(hidden)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module below the bundle's folder (importlib.abc.MetaPathFinder)."""
        if fullname.partition(".")[0] not in self.names:
            return None
        for folder in [str(self._root)] if path is None else path:
            # A FileFinder calls what it is given with a name and a path, which need not be a class.
            spec = FileFinder(folder, (cast(Any, self._loader), SOURCE_SUFFIXES)).find_spec(fullname)
            if spec is not None:
                return spec
        return None

    def _loader(self, fullname: str, path: str) -> SourceFileLoader:
        return _Loader(fullname, path, self._builtins)

    def _take_out(self) -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in self.names]
        return {name: sys.modules.pop(name) for name in names}

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """``__import__`` of the bundle's own code."""
        package = str((globals or {}).get("__package__") or "") if level else name
        if package.partition(".")[0] not in self.names:
            return builtins.__import__(name, globals, locals, fromlist, level)
        with self.importable():
            return builtins.__import__(name, globals, locals, fromlist, level)


class _Loader(SourceFileLoader):
    """Runs a module with the given builtins, and writes nothing beside it."""

    def __init__(self, fullname: str, path: str, builtins_: dict[str, Any]) -> None:
        super().__init__(fullname, path)
        self._builtins = builtins_

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._builtins
        super().exec_module(module)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Leave compiled code out of the model directory, which may be read-only."""


def _own_names(root: Path) -> frozenset[str]:
    files = {file.stem for file in root.glob("*.py")}
    packages = {folder.name for folder in root.iterdir() if folder.is_dir() and any(folder.rglob("*.py"))}
    return frozenset(name for name in files | packages if name.isidentifier()) - _NEVER_OWN
