"""A Secret has no text form, whichever way somebody tries to get one."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security import Secret

CANARY = "canary-7f3a9c"


def shown(secret: Secret[str]) -> str:
    """Everything that ordinary code prints of a value."""
    out = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{[secret]}",
        f"{ {'k': secret} }",
        str.format("{} {!r}", secret, secret),
        "%s %r".__mod__((secret, secret)),
    ]
    stream = io.StringIO()
    logger = logging.getLogger("test.secret")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        logger.error("value %s", secret)
        try:
            raise ValueError(secret)
        except ValueError:
            logger.exception("failed")
            out.append(traceback.format_exc())
    finally:
        logger.removeHandler(handler)
    return "\n".join([*out, stream.getvalue()])


def test_no_ordinary_way_shows_the_value() -> None:
    """repr, str, format, containers, logging and tracebacks all show the mask."""
    text = shown(Secret(CANARY))
    assert CANARY not in text
    assert "Secret(***)" in text


def test_it_cannot_be_pickled_copied_hashed_or_serialised() -> None:
    """Each way of taking it elsewhere raises, and the message does not show the value."""
    secret = Secret(CANARY)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, hash, json.dumps):
        with pytest.raises(TypeError) as caught:
            attempt(secret)
        assert CANARY not in str(caught.value)
    assert not hasattr(secret, "__dict__")


@given(st.text() | st.binary(), st.text() | st.binary())
def test_equality_is_that_of_the_values(a: str | bytes, b: str | bytes) -> None:
    """Two secrets are equal exactly when type and value are; a secret never equals the bare value."""
    assert (Secret(a) == Secret(b)) is (type(a) is type(b) and a == b)  # type: ignore[type-var]  # one of two types
    assert Secret(a) != a  # type: ignore[type-var]  # one of two types
    assert Secret(a).reveal() == a  # type: ignore[type-var]  # one of two types


def test_other_types_are_refused_without_showing_them() -> None:
    """Only str and bytes can be held."""
    with pytest.raises(TypeError) as caught:
        Secret(4242424242)  # type: ignore[type-var]  # wrong on purpose
    assert "4242" not in str(caught.value)
