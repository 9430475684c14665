"""Modules of compiled loops (numba), imported from a place where their machine code can be kept."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


@cache
def compiled(name: str) -> ModuleType | None:
    """The module of that full name, or None where numba is missing.

    numba keeps compiled code beside the source file. Where it cannot (the package is in a zip or wheel on
    the path, or no folder is writable) the module is imported from a copy in this user's private folder.
    """
    if importlib.util.find_spec("numba") is None:
        return None
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None and Path(spec.origin).exists():
        try:
            return importlib.import_module(name)
        except RuntimeError as error:  # numba: "cannot cache function …: no locator available"
            logging.getLogger(__name__).info("%s is compiled in a private folder: %s", name, error)
    return _import_copy(name, spec)


def frozen(values: Any, dtype: Any) -> NDArray[Any]:
    """A read-only C-contiguous view: memory-mapped and ordinary arrays are then of one compiled type."""
    view = np.ascontiguousarray(np.asarray(values, dtype=dtype)).view()
    view.flags.writeable = False
    return view


def _import_copy(name: str, spec: Any) -> ModuleType:
    source = spec.loader.get_source(name).encode()
    folder = private_folder() / hashlib.sha256(source).hexdigest()[:16]
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name.rpartition('.')[2]}.py"
    if not path.exists():
        handle, written = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(source)
        Path(written).replace(path)  # atomic: several workers may be here at once
    copy = importlib.util.spec_from_file_location(name, path)
    if copy is None or copy.loader is None:
        raise ImportError(f"cannot import {name} from {path}")
    module = importlib.util.module_from_spec(copy)
    sys.modules[name] = module
    try:
        copy.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def private_folder() -> Path:
    """A folder that only this user can write to: what lies there is executed."""
    base = Path(os.environ.get("NUMBA_CACHE_DIR") or tempfile.gettempdir())
    folder = base / f"recsys-spark-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        return Path(tempfile.mkdtemp(prefix="recsys-spark-"))
    return folder
