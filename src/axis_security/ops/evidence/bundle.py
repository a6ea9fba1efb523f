"""A signed bundle: one zip with the report, the page, OSCAL, CSV and the chained records, under an Ed25519 signature over a manifest of their hashes.

What an auditor receives can be checked with the public key alone, here or with any zip and Ed25519 tool: ``manifest.sig`` is the raw 64-byte signature over
``manifest.json`` as it stands.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.encoding import b64url_decode, b64url_encode
from axis_security.core.errors import AxisError, ConfigError
from axis_security.core.minted import parse_minted
from axis_security.core.secret import Secret
from axis_security.ops.evidence.controls import CONTROLS, STATEMENT
from axis_security.ops.evidence.oscal import to_oscal
from axis_security.ops.published import published
from axis_security.ops.verify.forms import to_json
from axis_security.ops.verify.page import to_html
from axis_security.ops.verify.report import Report

__all__ = ["FORMAT", "KEY_KIND", "EvidenceKey", "check_bundle", "to_csv", "write_bundle"]

FORMAT: Final = "axis-security/evidence-bundle/v1"
"""The name and version that a bundle carries."""
KEY_KIND: Final = "evidence"
"""The kind of a signing key's text form (``axis-security secrets mint evidence``)."""

_MAX_BYTES: Final = 256 << 20
_MANIFEST: Final = "manifest.json"
_SIGNATURE: Final = "manifest.sig"


class EvidenceKey:
    """Signs bundles. Keep it in the secrets manager; give auditors :attr:`public`.

    Raises:
        ConfigError: *text* is no whole key of kind ``evidence``.
    """

    def __init__(self, text: Secret[str]) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(parse_minted(KEY_KIND, text).reveal())

    @property
    def public(self) -> str:
        """The public key: 32 bytes, base64url."""
        return b64url_encode(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """64 bytes (RFC 8032)."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"EvidenceKey(public={self.public})"


def to_csv(report: Report) -> str:
    """One line for each control and check that supports it, for a spreadsheet. Cells that a spreadsheet would run as a formula are quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["framework", "control", "title", "promise", "check", "ok", "seen", "time"])
    for control in CONTROLS:
        for row in report.rows:
            if row.promise.id in control.promises and row.declined is None:
                for check in row.checks:
                    cells = (
                        control.framework,
                        control.id,
                        control.title,
                        row.promise.text,
                        check.name,
                        "yes" if check.ok else "no",
                        check.seen,
                    )
                    writer.writerow([*map(_cell, cells), report.at.isoformat()])
    return out.getvalue()


def _cell(text: str) -> str:
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def write_bundle(out: Path, report: Report, key: EvidenceKey, *, files: Mapping[str, bytes] | None = None) -> Mapping[str, Any]:
    """Write the bundle to *out* and return its manifest. The same report, files and key give the same bytes.

    Args:
        files: more to go in, by name: the evidence records, drill records, an audit export's anchors, the security page's policies.

    Raises:
        ConfigError: a file's name is no plain name, or one of ours.
    """
    contents = {
        "report.json": to_json(report).encode(),
        "report.html": to_html(report).encode(),
        "assessment-results.oscal.json": to_oscal(report).encode(),
        "controls.csv": to_csv(report).encode(),
        "README.txt": f"{STATEMENT}\n\nPublic key (Ed25519, base64url): {key.public}\n".encode(),
    }
    for name, data in (files or {}).items():
        if "/" in name or "\\" in name or name.startswith(".") or not name or name in {*contents, _MANIFEST, _SIGNATURE}:
            raise ConfigError(
                what=f"`{name}` cannot go into the bundle", why="it is no plain name, or one of the bundle's own", fix="rename it"
            )
        contents[name] = data
    manifest = {
        "format": FORMAT,
        "statement": STATEMENT,
        "product": report.product,
        "time": report.at.isoformat(),
        "version": report.version,
        "ok": report.ok,
        "public_key": key.public,
        "files": {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in sorted(contents.items())},
    }
    signed = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    with published(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {_MANIFEST: signed, _SIGNATURE: key.sign(signed), **dict(sorted(contents.items()))}.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return manifest


def check_bundle(path: Path, public_key: str) -> CheckResult:
    """Whether *path* is a bundle signed with the key of *public_key*, and every file in it is as signed, with none more. Never raises, whatever it holds."""

    def no(why: str) -> CheckResult:
        finding = Finding(
            code="evidence.bundle",
            severity=Severity.ERROR,
            object=path.name,
            what="the bundle is not what was signed",
            why=why,
            fix="ask for it again, and for the public key over another channel",
        )
        return CheckResult(name="evidence.bundle", ok=False, seen=why, findings=(finding,))

    try:
        key = Ed25519PublicKey.from_public_bytes(b64url_decode(public_key))
    except (AxisError, ValueError):
        return no("the public key is no Ed25519 key in base64url")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names) or sum(info.file_size for info in archive.infolist()) > _MAX_BYTES:
                return no("it names a file twice, or is too large")
            contents = {name: archive.read(name) for name in names}
        signed = contents.pop(_MANIFEST)
        key.verify(contents.pop(_SIGNATURE), signed)
        manifest = json.loads(signed)
        if manifest["format"] != FORMAT:
            return no("it is of another format")
        if manifest["files"].keys() != contents.keys():
            return no("it holds more or fewer files than were signed")
        changed = [name for name, data in contents.items() if hashlib.sha256(data).hexdigest() != manifest["files"][name]["sha256"]]
    except InvalidSignature:
        return no("the signature does not fit this key")
    except Exception as error:  # noqa: BLE001  # zlib.error, BadZipFile, KeyError and whatever else a damaged archive brings
        return no(f"it cannot be read ({type(error).__name__})")
    if changed:
        return no(f"{', '.join(sorted(changed))} was changed")
    return CheckResult(name="evidence.bundle", ok=True, seen=f"{manifest['product']}, {manifest['time']}: {len(contents)} files, signed")
