"""The JSON interface against its own description: requests that fit and requests that do not, and what comes back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok
from tests.integration.crm.conftest import Crm

TRIES = 400 if os.environ.get("AXIS_TEST_PROFILE") == "nightly" else 20
# The cookie and the token are ours to send; schemathesis itself asks once more without them and wants a 401.
_CONFIG = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})
FOREIGN = ("Lagos", "lagosfreight", "Okafor", "Fischer", "Globex")


@dataclass(frozen=True)
class Caller:
    """What a signed-in program sends along."""

    headers: dict[str, str]
    ids: tuple[str, ...]
    """Contacts of this caller's workspace."""
    others: tuple[str, ...]
    """Contacts and people of the other one."""


@pytest.fixture(scope="module")
def caller(crm: Crm) -> Caller:
    olga, other = crm.signed_in("owner"), crm.signed_in("owner", "globex")
    cookies = "; ".join(f"{name}={value}" for name, value in olga.client.cookies.items())
    foreign = (
        *other.ids("contacts"),
        *other.ids("deals", "/deals"),
        *(each.user.text for each in crm.people if each.workspace == "globex"),
    )
    return Caller({"cookie": cookies, "x-csrf-token": olga.token()}, tuple(olga.ids("contacts")), foreign)


def test_every_answer_is_as_described(crm: Crm, caller: Caller) -> None:
    """No request makes a server error; status, media type and body are those of the description; without the cookie nothing is answered; no word of the other
    workspace is in any answer.
    """
    schema = schemathesis.openapi.from_asgi("/openapi.json", crm.app, config=_CONFIG)
    statuses: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=TRIES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
            def ask(case: schemathesis.Case[Any]) -> None:
                answer = case.call_and_validate(headers=caller.headers)
                statuses.setdefault(case.method, set()).add(answer.status_code)
                text = answer.text
                assert not any(word in text for word in (*FOREIGN, *caller.others)), text

            try:
                ask()
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, "an operation without parameters has no wrong ones"
    # The requests got past the door: both good and bad ones were understood as such.
    assert statuses["GET"] >= {200, 404, 422}, statuses
    assert statuses["POST"] >= {201, 422}, statuses


def test_the_description_names_every_guard(crm: Crm) -> None:
    """Each operation of the interface asks for the session's cookie, and what changes something for the token as well."""
    described: dict[str, dict[str, dict[str, object]]] = crm.client().get("/openapi.json").json()["paths"]
    found = {(method, path): operation["security"] for path, operations in described.items() for method, operation in operations.items()}
    assert len(found) == 6
    for (method, path), security in found.items():
        assert security == [{"session": []} if method == "get" else {"session": [], "csrf": []}], path


def test_the_words_would_be_seen(crm: Crm) -> None:
    """The control: the other workspace's own answers do hold the words that are looked for."""
    other = crm.signed_in("viewer", "globex")
    answer: httpx.Response = other.client.get("/api/contacts")
    assert any(word in answer.text for word in FOREIGN)
