"""Transit's answers that are none: a typed refusal, whatever stands in front of the server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from axis_security.core.secret import Secret
from axis_security.crypto.errors import KmsUnavailable
from axis_security.crypto.kms.transit import TransitKms
from axis_security.crypto.vault_session import VaultSession


class Session(VaultSession):
    """Gives one answer to everything."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    @property
    def missing(self) -> type[Exception]:
        return FileNotFoundError

    def call(self, work: Any) -> Any:
        return work(SimpleNamespace(adapter=SimpleNamespace(post=lambda path, json: self.answer)))


@pytest.mark.parametrize("answer", [{}, {"data": None}, {"data": {}}, {"errors": []}, None, "text", {"data": {"plaintext": "no base64!"}}])
def test_an_answer_that_is_none_is_unavailability(answer: object) -> None:
    """A proxy's page, an empty body, a field that is missing: no KeyError from inside, and no key."""
    service = TransitKms(Session(answer), key="axis")
    with pytest.raises(KmsUnavailable, match="something else than a key"):
        service.unwrap(b"vault:v1:x", {"a": "b"})
    if answer != {"data": {"plaintext": "no base64!"}}:
        with pytest.raises(KmsUnavailable, match="something else than a key"):
            service.wrap(Secret(bytes(32)), {"a": "b"})
