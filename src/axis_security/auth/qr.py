"""QR codes as SVG, for authenticator enrolment (extra ``qr``)."""

from __future__ import annotations

import io

from axis_security.core.errors import MissingExtra
from axis_security.core.secret import Secret

__all__ = ["qr_svg"]


def qr_svg(text: Secret[str], *, scale: int = 4) -> Secret[str]:
    """*text* as a QR code: one inline ``<svg>`` without script, style or link. It carries the secret, so it is one too.

    Raises:
        MissingExtra: segno is not installed.
    """
    try:
        import segno
    except ImportError:
        raise MissingExtra(package="segno", extra="qr") from None
    out = io.BytesIO()
    segno.make_qr(text.reveal(), error="m").save(
        out, kind="svg", scale=scale, xmldecl=False, svgns=True, nl=False, title="QR code for your authenticator"
    )
    return Secret(out.getvalue().decode("utf-8"))
