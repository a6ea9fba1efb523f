"""The reference of events lists exactly the events."""

from __future__ import annotations

import re
from pathlib import Path

from axis_security.core.events import FIELDS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "events.md"


def test_the_page_lists_every_kind_with_its_fields() -> None:
    """Both ways: nothing on the page that is not in the code, nothing in the code that is not on the page."""
    rows = dict(re.findall(r"^\| `([a-z._]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert {kind: set(re.findall(r"`(\w+)`", fields)) for kind, fields in rows.items()} == {
        str(kind): set(fields) for kind, fields in FIELDS.items()
    }
