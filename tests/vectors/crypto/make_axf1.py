"""Makes axf1.json: run once, kept frozen. The nonce is fixed here by replacing the source of randomness, which nothing in the library allows."""

from __future__ import annotations

import json
from pathlib import Path

from axis_security.crypto import envelope

CASES = (
    ("empty plaintext, no row", "acme", "users.ssn", 1, None, b""),
    ("text, no row", "acme", "users.ssn", 1, None, b"123-45-6789"),
    ("text, with row", "acme", "users.ssn", 1, b"\x00\x01", b"123-45-6789"),
    ("empty row is no row", "acme", "users.ssn", 1, b"", b"x"),
    ("largest key id", "018f2b6e-7c55-7aaa-8000-000000000001", "contact.email", 2**32 - 1, b"row", bytes(range(256))),
    ("non-ASCII field name", "t", "notiz.größe", 7, None, "Zürich".encode()),
)


def main() -> None:
    vectors = []
    for number, (comment, tenant, field, key_id, row, plaintext) in enumerate(CASES):
        root, nonce = bytes([number]) * 32, bytes([0xF0 | number]) * 12
        envelope._urandom = lambda size, nonce=nonce: nonce[:size]  # type: ignore[misc]  # fixed for the vector only
        cipher = envelope.FieldCipher(root, tenant=tenant, field=field, key_id=key_id)
        vectors.append(
            {
                "comment": comment,
                "root": root.hex(),
                "tenant": tenant,
                "field": field,
                "key_id": key_id,
                "row": None if row is None else row.hex(),
                "plaintext": plaintext.hex(),
                "sealed": cipher.seal(plaintext, row).hex(),
            }
        )
    Path(__file__).with_name("axf1.json").write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
