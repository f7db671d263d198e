"""Where the page keeps what it is sent."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import NoReturn

FOLDER = "GRADIO_TEMP_DIR"

ENDS = ("SIGTERM", "SIGHUP")
"""Signals by which a page that runs unattended is stopped, where the system has them."""


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


def end_in_order() -> None:
    """Let a signal that stops the process end it as Ctrl-C does, so that the uploads go.

    One that is ignored, as under `nohup`, stays so.
    """
    for name in ENDS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _leave)


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
