"""Opens axf1.json from the words of the specification alone: shares no code with the library but AES-GCM itself."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def lp(part: bytes) -> bytes:
    return struct.pack(">H", len(part)) + part


def open_vector(vector: dict[str, Any]) -> bytes:
    sealed = bytes.fromhex(vector["sealed"])
    magic, suite, key_id = struct.unpack(">BBI", sealed[:6])
    assert (magic, suite, key_id) == (0xA1, 0x01, vector["key_id"])
    info = lp(b"axf1") + lp(vector["tenant"].encode()) + lp(vector["field"].encode()) + struct.pack(">I", key_id)
    okm = hmac.new(bytes.fromhex(vector["root"]), info + b"\x01", hashlib.sha512).digest()
    assert sealed[6:22] == okm[32:48]
    row = b"" if vector["row"] is None else bytes.fromhex(vector["row"])
    opener = Cipher(algorithms.AES(okm[:32]), modes.GCM(sealed[22:34], sealed[-16:])).decryptor()
    opener.authenticate_additional_data(sealed[:22] + info + lp(row))
    return opener.update(sealed[34:-16]) + opener.finalize()


def vectors() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(__file__).with_name("axf1.json").read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    for each in vectors():
        assert open_vector(each).hex() == each["plaintext"], each["comment"]
    print("all vectors open")
