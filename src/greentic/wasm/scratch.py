"""Directories that end with the process that made them."""

from __future__ import annotations

import atexit
import shutil
import tempfile


def scratch_directory(prefix: str) -> str:
    """A new private directory, which is deleted when this process exits."""
    directory = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
