"""A small Hugging Face Hub on the loopback: serves repositories from a folder, with faults on demand.

The routes are those that huggingface_hub 2.4 asks for: model info, tree, and resolve by HEAD and GET with ranges.
Point HF_ENDPOINT at `Hub.url` before huggingface_hub is imported: in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """A folder served as a repository, all its revisions being the same commit; branches are other folders."""

    folder: Path
    revisions: tuple[str, ...] = ("main",)
    token: str | None = None
    """Who has it not gets 401 (or 403 with another token), as for a gated repository."""
    branches: dict[str, Repository] = field(default_factory=dict)

    def at(self, revision: str) -> Repository:
        """The repository as a branch (or the commit of one) has it."""
        named = {**self.branches, **{branch.commit: branch for branch in self.branches.values()}}
        return named.get(revision, self)

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for path in self.files():
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path has `where` in it."""

    status: int = 0
    """The answer; 0 cuts the connection in the middle of the body, 200 sends other bytes than it says."""
    where: str = ""
    times: int = 1


@dataclass
class Hub:
    """Use as a context manager: `with Hub() as hub: hub.repositories["owner/name"] = Repository(folder)`."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, authorization) of every request."""

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """The Hub is down from now on."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, status: int, where: str = "", times: int = 1) -> None:
        self.faults.append(Fault(status, where, times))

    def fault_for(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.where in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    owner: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization")
        self.owner.requests.append((self.command, path, authorization))
        fault = self.owner.fault_for(path)
        if fault and fault.status not in (0, 200):
            return self._error(fault.status, headers={"Retry-After": "0"} if fault.status == 429 else {})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            name, what, revision = match[1], match[2], match[3] or "main"
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            name, what, revision = match[1], match[3], match[2]
        else:
            return self._error(404)
        repository = self.owner.repositories.get(name)
        if repository is None:
            return self._error(401, "RepoNotFound")
        if repository.token and authorization != f"Bearer {repository.token}":
            return self._error(403 if authorization else 401, "GatedRepo")
        repository = repository.at(revision)
        if revision not in (*repository.revisions, repository.commit):
            return self._error(404, "RevisionNotFound")
        if "/resolve/" in path:
            return self._file(repository, what or "", body, fault)
        return self._json(_tree(repository) if what == "tree" else _info(name, repository))

    def _file(self, repository: Repository, name: str, body: bool, fault: Fault | None) -> None:
        file = repository.folder / name
        if not file.is_file():
            self._error(404, "EntryNotFound")
            return
        content = file.read_bytes()
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        if fault and fault.status == 200:
            self.wfile.write(bytes(byte ^ 1 for byte in content[start:]))
        elif fault:
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(content[start:])

    def _json(self, content: Any) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _error(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _info(name: str, repository: Repository) -> dict[str, Any]:
    files = [{"rfilename": str(path.relative_to(repository.folder))} for path in repository.files()]
    return {
        "id": name,
        "modelId": name,
        "sha": repository.commit,
        "private": False,
        "tags": [],
        "downloads": 0,
        "siblings": files,
    }


def _tree(repository: Repository) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
            "path": str(path.relative_to(repository.folder)),
        }
        for path in repository.files()
    ]
