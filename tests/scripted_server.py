"""Starts `loopback.py`, a server that answers from a script, and says what it was sent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mm.remote.connect import connect
from mm.remote.http_client import RetryPolicy
from mm.remote.remote_vlm import RemoteVLM

QWEN = "Qwen/Qwen3-VL-4B-Instruct"
HASTY = RetryPolicy(retries=2, backoff_s=0.01, silence_s=5, connect_s=2)


def said(text: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish, **more}]}


def reply(*pieces: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A streamed reply as servers send it: its pieces, why it ended, what it cost."""
    usage = {"prompt_tokens": 10, "completion_tokens": len(pieces)}
    usage["prompt_tokens_details"] = {"cached_tokens": 4}  # pyright: ignore[reportArgumentType]
    ends = [said("", finish), {"choices": [], "usage": usage}, "[DONE]"]
    return {"chunks": [*map(said, pieces), *ends], **more}


class Server:
    """The process, and what it has seen."""

    def __init__(self, port: int, seen: Path) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._seen = seen

    @property
    def seen(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._seen.read_text().splitlines()]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [s["body"] for s in self.seen if s.get("body")]

    def model(self, **options: Any) -> RemoteVLM:
        options = {"key": "", "patience": HASTY, **options}
        return connect(options.pop("name", QWEN), base_url=self.base_url, **options)


Serve = Callable[..., Server]


@contextmanager
def servers(folder: Path) -> Iterator[Serve]:
    """Gives what starts servers that answer from a script; they end with the context."""
    processes: list[subprocess.Popen[str]] = []
    loopback = Path(__file__).parent / "loopback.py"

    def start(*replies: dict[str, Any], models: dict[str, Any] | None = None) -> Server:
        models = models or {"body": {"data": [{"id": QWEN}]}}
        number = len(processes)
        script, seen = folder / f"script{number}", folder / f"seen{number}"
        script.write_text(json.dumps({"models": models, "replies": replies}))
        seen.touch()
        command = [sys.executable, "-I", "-S", str(loopback), script, seen]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        output = processes[-1].stdout
        assert output
        return Server(int(output.readline()), seen)

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.wait()
