"""The Python modules that a bundle brings, such as `scripts.networks.unest`.

Run alone, MONAI finds them in the working directory. Here a process may use two bundles, the candidate and
the approved one that it is measured against, and nearly every bundle calls its folder `scripts`: the names
mean the modules of the bundle that was activated last.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_NEVER_OWN = sys.stdlib_module_names | {"healthimaging", "ignite", "monai", "numpy", "torch", "training"}
"""Names that a bundle cannot take over: everything else in the process relies on them."""


class _ActiveBundle(MetaPathFinder):
    """Finds the top-level modules of one bundle at a time; Python finds what lies below them by itself."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._names: frozenset[str] = frozenset()
        self._loaded: dict[Path, dict[str, ModuleType]] = {}

    def activate(self, root: Path) -> None:
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        if root == self._root:
            return
        if self._root is not None:
            self._loaded[self._root] = _take_out(self._names)
        self._root, self._names = root, _own_names(root)
        _take_out(self._names)
        sys.modules.update(self._loaded.pop(root, {}))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in self._names:
            return None
        return PathFinder.find_spec(fullname, [str(self._root)])


_ACTIVE = _ActiveBundle()


def activate(root: Path) -> None:
    """Lets the names of a bundle's own modules mean that bundle's, until another one is activated."""
    _ACTIVE.activate(root.resolve())


def _take_out(names: frozenset[str]) -> dict[str, ModuleType]:
    own = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in own}


def _own_names(root: Path) -> frozenset[str]:
    files = {file.stem for file in root.glob("*.py")}
    packages = {folder.name for folder in root.iterdir() if folder.is_dir() and any(folder.rglob("*.py"))}
    return frozenset(name for name in files | packages if name.isidentifier()) - _NEVER_OWN


def modules_digest(root: Path) -> str:
    """SHA-256 over the bundle's own modules, which its transforms may come from."""
    sha256 = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        sha256.update(f"{file.relative_to(root).as_posix()}\0{content}\n".encode())
    return sha256.hexdigest()
