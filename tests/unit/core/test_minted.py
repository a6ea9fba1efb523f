"""Minted keys: found by shape, refused when damaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.errors import ConfigError
from axis_security.core.minted import MINTED_PATTERN, is_minted, minted_text, parse_minted
from axis_security.core.secret import Secret


@given(st.binary(min_size=32, max_size=32))
def test_a_minted_key_reads_back_and_is_found_in_text(key: bytes) -> None:
    """Text and bytes map one to one, and the scanner's pattern finds the key inside any line."""
    text = minted_text("seal", key).reveal()
    assert parse_minted("seal", Secret(text)).reveal() == key
    found = MINTED_PATTERN.search(f'KEY = "{text}"  # comment')
    assert found is not None
    assert is_minted(found)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 200), st.sampled_from("aZ9-_x"))
def test_any_changed_character_is_refused(key: bytes, at: int, char: str) -> None:
    """One changed character anywhere is refused, and the message does not show the key."""
    text = minted_text("seal", key).reveal()
    at %= len(text)
    damaged = text[:at] + char + text[at + 1 :]
    if damaged == text:
        return
    with pytest.raises(ConfigError) as caught:
        parse_minted("seal", Secret(damaged))
    assert text[12:40] not in str(caught.value)


def test_another_kind_is_refused() -> None:
    """A key for one purpose does not serve another."""
    with pytest.raises(ConfigError, match="pepper"):
        parse_minted("pepper", minted_text("seal", bytes(32)))
