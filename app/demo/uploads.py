"""Where the page keeps what it is sent."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

FOLDER = "GRADIO_TEMP_DIR"


def keep_apart() -> None:
    """Have Gradio, which is imported later, keep uploads in a folder of this process, removed at
    its end, unless the environment names one.

    Its own choice is one folder for all users of the machine.
    """
    if os.environ.get(FOLDER):
        return
    folder = Path(tempfile.mkdtemp(prefix="mm-demo-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[FOLDER] = str(folder)
