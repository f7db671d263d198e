"""A little HTTP server that answers from a script: a process of its own, as a model's server is.

    python tests/loopback.py SCRIPT SEEN

serves what the JSON file SCRIPT says, one entry a request, the last one for ever, and adds each
request, as a line of JSON, to the file SEEN. It prints its port first. An entry is
{"status", "headers", "body", "pause_s"} ("latin1": true for a body whose letters are bytes), or
{"chunks": [...], "pause_s"}, which is streamed, or
{"echo": true}, which streams the words that the last message ends with.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

script = json.loads(Path(sys.argv[1]).read_text())
seen = Path(sys.argv[2])
turn, lock = [0], Lock()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.note(None)
        self.plain(script["models"])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with lock:
            entry = script["replies"][min(turn[0], len(script["replies"]) - 1)]
            turn[0] += 1
            self.note(body)
        if "echo" in entry:
            asked = body["messages"][-1]["content"][-1]["text"]
            said = {"choices": [{"delta": {"content": asked}, "finish_reason": "stop"}]}
            self.stream({"chunks": [said, "[DONE]"]})
        elif "chunks" in entry:
            self.stream(entry)
        else:
            self.plain(entry)

    def note(self, body: object) -> None:
        key = self.headers.get("authorization")
        with seen.open("a") as file:
            print(json.dumps({"path": self.path, "key": key, "body": body}), file=file)

    def plain(self, entry: dict) -> None:
        time.sleep(entry.get("pause_s", 0))
        text = entry["body"] if isinstance(entry["body"], str) else json.dumps(entry["body"])
        self.send_response(entry.get("status", 200))
        for name, value in entry.get("headers", {}).items():
            self.send_header(name, value)
        body = text.encode("latin-1" if entry.get("latin1") else "utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, entry: dict) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            for chunk in entry["chunks"]:
                said = chunk if isinstance(chunk, str) else json.dumps(chunk)
                self.wfile.write(f"data: {said}\n\n".encode())
                self.wfile.flush()
                time.sleep(entry.get("pause_s", 0))
        except OSError:
            with seen.open("a") as file:
                print(json.dumps({"gone": True}), file=file)

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
