"""A local server that speaks the parts of the Hugging Face hub's protocol that downloads use.

Small files come from ``/{id}/resolve/{revision}/{file}``; safetensors are redirected from there to a second origin, as
the hub does to its content network, and can be fetched in ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """Files by revision; ``main`` is the default branch."""

    revisions: dict[str, dict[str, bytes]]
    token: str | None = None
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        """Return the 40 digits of a branch, a tag or a commit; None if there is no such revision."""
        commits = {name: _commit_id(files) for name, files in self.revisions.items()}
        return revision if revision in commits.values() else commits.get(revision)

    def files(self, commit: str) -> dict[str, bytes]:
        return next(files for files in self.revisions.values() if _commit_id(files) == commit)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class HubStandIn:
    """A context manager: the server runs inside the block, at `url`."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)
    """Answer requests whose path contains this with this status."""
    cut_once: dict[str, int] = field(default_factory=dict)
    """Drop the connection after so many bytes of the file of this name, the first time it is fetched."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> HubStandIn:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self.url, self.content_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        self._threads = [threading.Thread(target=s.serve_forever, args=(0.02,), daemon=True) for s in self._servers]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    def fetched(self) -> list[str]:
        """Return the names of the files whose content was asked for, in order."""
        return [unquote(r.path.split("/")[-1]) for r in self.requests if r.method == "GET" and "/api/" not in r.path]


def _commit_id(files: Mapping[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent: the tests read `HubStandIn.requests`."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/api/agent-harnesses"):  # the client's own telemetry
            return self._refuse(404)
        self.hub.requests.append(Request(self.command, path, dict(self.headers)))
        for part, status in self.hub.failing.items():
            if part in path:
                return self._refuse(status)
        if path.startswith("/content/"):
            return self._content(path)
        match = re.fullmatch(r"/api/(?:models|datasets)/(.+?)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?", path)
        match = match or re.fullmatch(r"/(?:datasets/)?(.+?)/(resolve)/([^/]+)/(.+)", path)
        if match is None:
            return self._refuse(404)
        repo_id, kind, revision = match[1], match[2], unquote(match[3] or "main")
        if new_id := self.hub.moved.get(repo_id):
            return self._answer(307, b"", {"Location": path.replace(repo_id, new_id, 1)})
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        authorization = self.headers.get("Authorization")
        if repository.token and authorization is None:
            # The client takes any 401 for an unknown repository, but only over HTTPS; here the code must say so.
            code = "GatedRepo" if repository.gated else "RepoNotFound"
            return self._refuse(401, code, "Invalid username or password.")
        if repository.token and authorization != f"Bearer {repository.token}":
            return self._refuse(401, None, "Invalid credentials in Authorization header")
        commit = repository.commit(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.files(commit)
        if kind == "resolve":
            return self._resolve(repo_id, commit, unquote(match[4]), files)
        if kind == "tree":
            return self._json(_tree(files, match[4] or "", deep="recursive=true" in self.path.lower()))
        siblings = [{"rfilename": name} for name in files]
        return self._json({"id": repo_id, "sha": commit, "siblings": siblings, "private": False, "tags": []})

    def _resolve(self, repo_id: str, commit: str, name: str, files: Mapping[str, bytes]) -> None:
        if name not in files:
            return self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        data = files[name]
        headers = {"X-Repo-Commit": commit}
        if not name.endswith(".safetensors"):
            return self._answer(200, data, headers | {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        headers |= {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        return self._answer(302, b"", headers | {"Location": f"{self.hub.content_url}/content/{repo_id}/{commit}/{name}"})

    def _content(self, path: str) -> None:
        _, _, *repo_id, commit, name = path.split("/")
        data = self.hub.repositories["/".join(repo_id)].files(commit)[name]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        status, start = 200, 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            status, start = 206, int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._answer(status, data[start:], headers, cut=self.hub.cut_once.pop(name, None))

    def _refuse(
        self, status: int, code: str | None = None, message: str = "refused", headers: Mapping[str, str] | None = None
    ) -> None:
        told = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._answer(status, b"{}", {**told, **(headers or {})})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str], *, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
            self.close_connection = self.close_connection or cut is not None


def _tree(files: Mapping[str, bytes], folder: str, *, deep: bool) -> list[dict[str, Any]]:
    """What lies in a folder: its files, and either its folders or, ``deep``, all that lies in those."""
    prefix = folder and f"{folder}/"
    inside = {name: data for name, data in files.items() if name.startswith(prefix)}
    folders = {prefix + name.removeprefix(prefix).split("/")[0] for name in inside if "/" in name.removeprefix(prefix)}
    shown = [_tree_entry(name, data) for name, data in inside.items() if deep or "/" not in name.removeprefix(prefix)]
    return shown + [{"type": "directory", "path": path, "oid": "0" * 40} for path in sorted(folders)]


def _tree_entry(name: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(".safetensors"):
        return entry | {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}}
    return entry
