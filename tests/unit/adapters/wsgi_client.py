"""The smallest WSGI server: one request, checked against PEP 3333, with the pieces as they came."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator


@dataclass
class Got:
    """An answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def code(self) -> str:
        """The code of a refusal."""
        return str(json.loads(self.body)["code"])


def environ(path: str = "/", *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b"") -> dict[str, Any]:
    path, _, query = path.partition("?")
    made: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REMOTE_ADDR": "192.0.2.9",
        "wsgi.url_scheme": "https",
    }
    setup_testing_defaults(made)
    made["wsgi.input"] = io.BytesIO(body)
    made["HTTP_HOST"] = "app.example.com"
    if body or method not in {"GET", "HEAD", "OPTIONS"}:
        made["CONTENT_LENGTH"] = str(len(body))
    for name, value in (headers or {}).items():
        key = name.upper().replace("-", "_")
        made[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return made


@contextmanager
def opened(app: Callable[..., Any], env: dict[str, Any]) -> Iterator[tuple[Any, list[Any]]]:
    """The iterable, and what the server was told; closed at the end, as a server does."""
    told: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
        told[:] = [status, headers]
        return told.append

    iterable: Any = validator(app)(env, start_response)
    try:
        yield iterable, told
    finally:
        iterable.close()


def call(
    app: Callable[..., Any], path: str = "/", *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Got:
    """One request, start to end."""
    with opened(app, environ(path, method=method, headers=headers, body=body)) as (iterable, told):
        pieces = b"".join(iterable)
        return Got(int(told[0][:3]), told[1], b"".join([*told[2:], pieces]))
