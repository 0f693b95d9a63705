"""A stand-in for the HTTP API of W&B, as far as the client of wandb 0.31 calls it, in a thread of this process.

It answers only for the calls that it knows. Any other is refused with status 400 and kept in ``refused``, so that a
test fails instead of passing over it. What it cannot show is whether the real server takes the same calls, and how
the site draws them.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.wandb.fake_graphql import OPERATIONS, operation
from tests.wandb.records import Run, Sweep

API_KEY = "0123456789" * 4
VERSION = "0.31"  # the minor release of the client that this was written for


class FakeBackend:
    """Serves from a free port of this machine while the ``with`` block lasts.

    Attributes:
        runs: by their id.
        sweeps: by their id.
        views: variables of every report that was saved.
        refused: calls that it does not know.
        telemetry: number of calls about the client itself.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.views: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.telemetry = 0
        self.lock = threading.Lock()
        self.server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"backend": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> FakeBackend:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send an unmodified client here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": API_KEY}

    def run(self, id: str) -> Run:
        """The run of this id, new or known."""
        return self.runs.setdefault(id, Run(id))

    def take_stream(self, id: str, content: dict[str, Any]) -> None:
        """Take what came on the file stream of a run: history and summary lines, and its exit code at the end."""
        run = self.run(id)
        for name, part in (content.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]] if name.endswith(("jsonl", "summary.json")) else []
            if name == "wandb-history.jsonl":
                run.history[part["offset"] :] = lines
            elif name == "wandb-summary.json":
                run.summary = lines[-1]
        if content.get("exitcode") is not None:
            run.exit_code = content["exitcode"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may hang up when they end; anything else is a mistake in the fake."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: FakeBackend

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""

    def do_POST(self) -> None:
        body = self._body()
        with self.backend.lock:
            if self.path.startswith("/sdk/otel/"):
                self.backend.telemetry += 1
                self._answer({}, 404)  # as a server does that takes none
                return
            if self._key() != API_KEY:
                self._answer({"errors": [{"message": "user is not logged in"}]}, 401)
            elif self.path == "/graphql":
                self._graphql(json.loads(body))
            elif self.path.endswith("/file_stream"):
                self.backend.take_stream(self.path.split("/")[-2], json.loads(body))
                self._answer({})
            else:
                self._refuse(f"POST {self.path}")

    def do_PUT(self) -> None:
        body, (_, kind, id, name) = self._body(), self.path.split("/", 3)
        with self.backend.lock:
            if kind == "upload":
                self.backend.run(id).files[name] = body
                self._answer({})
            else:
                self._refuse(f"PUT {self.path}")

    def do_GET(self) -> None:
        with self.backend.lock:
            self._refuse(f"GET {self.path}")

    def _graphql(self, body: dict[str, Any]) -> None:
        name = operation(body["query"])
        if name in OPERATIONS:
            self._answer({"data": OPERATIONS[name](self.backend, body.get("variables") or {})})
        else:
            self._refuse(f"{name}: {body['query']}")

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _key(self) -> str:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        return base64.b64decode(given).decode().partition(":")[2]

    def _refuse(self, call: str) -> None:
        self.backend.refused.append(call)
        self._answer({"errors": [{"message": f"the fake does not know {call}"}]}, 400)

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
