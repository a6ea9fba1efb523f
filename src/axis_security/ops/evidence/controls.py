"""Which control of a standard a measured promise supports.

Titles are ours, in short; the standards' own words are with AICPA (Trust Services Criteria, 2017 with the points of focus of 2022) and OWASP (ASVS 5.0.0). Only
what a look measures is listed: a control that needs people, contracts or buildings is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CONTROLS", "STATEMENT", "Control", "controls_of"]

STATEMENT: Final = (
    "This is evidence that the measurements below were made, at the times given, with these results. It supports an examination of controls. It is no SOC 2 report "
    "and confers no attestation: that is the opinion of an independent auditor about an organisation, its people and its processes, of which software is a part."
)
"""Stands in every bundle and export."""


@dataclass(frozen=True, slots=True)
class Control:
    """One requirement, and the promises whose measurement supports it."""

    framework: str
    id: str
    title: str
    promises: tuple[int, ...]

    @property
    def short(self) -> str:
        """Framework and id: ``SOC 2 CC6.1``, ``ASVS 12.1.1``."""
        return f"{self.framework} {self.id}"

    @property
    def token(self) -> str:
        """The id as an XML name, for OSCAL: ``cc6.1``, ``v12.1.1``."""
        return f"v{self.id}" if self.id[0].isdigit() else self.id.lower()


def _soc2(number: str, title: str, *promises: int) -> Control:
    return Control("SOC 2", number, title, promises)


def _asvs(number: str, title: str, *promises: int) -> Control:
    return Control("ASVS", number, title, promises)


CONTROLS: Final = (
    _soc2("CC2.3", "Outsiders are told how to report matters, and heard", 13),
    _soc2("CC4.1", "Controls are evaluated as they run", 11, 14),
    _soc2("CC6.1", "Access to protected information is restricted by logical means", 2, 3, 4, 5, 6, 7, 12),
    _soc2("CC6.2", "Users are registered and authorised before they get access", 9),
    _soc2("CC6.3", "Access follows roles and least privilege", 7, 8, 9),
    _soc2("CC6.6", "Threats from outside the boundary are held off", 1, 5, 6, 8),
    _soc2("CC6.7", "Information is protected while it moves, and its removal is restricted", 1, 9),
    _soc2("CC7.1", "Changes of configuration that open a weakness are detected", 3, 7, 11, 12),
    _soc2("CC7.2", "Components are monitored for anomalies", 11, 14),
    _soc2("CC7.3", "Events are kept so that they can be evaluated", 14),
    _soc2("CC7.5", "The system is recovered after an incident", 10),
    _soc2("CC8.1", "Changes are authorised and tested before they are deployed", 7, 11, 12),
    _soc2("A1.2", "Data is backed up and can be recovered", 10),
    _soc2("A1.3", "Recovery is tested", 10),
    _soc2("C1.1", "Confidential information is protected while it is kept", 2, 3),
    _asvs("3.3.1", "Cookies are Secure and prefixed", 5),
    _asvs("3.3.2", "Cookies have the SameSite attribute that fits", 5),
    _asvs("3.3.3", "Cookies have the __Host- prefix", 5),
    _asvs("3.3.4", "Scripts cannot read session cookies", 5),
    _asvs("6.5.3", "Seeds of one-time codes come from a CSPRNG", 6),
    _asvs("6.5.5", "One-time codes are short-lived", 6),
    _asvs("8.1.1", "The rules of authorisation are written down", 7),
    _asvs("8.2.1", "Functions are restricted to explicit permissions", 8, 9),
    _asvs("8.2.2", "Data is restricted to explicit permissions", 3, 8),
    _asvs("8.3.1", "Authorisation is enforced by a trusted layer", 3, 8, 9),
    _asvs("8.4.1", "Tenants cannot affect one another", 3),
    _asvs("11.3.2", "Only approved ciphers and modes are used", 2),
    _asvs("11.3.3", "Encrypted data is authenticated", 2),
    _asvs("11.4.2", "Passwords are stored with a costly derivation", 4),
    _asvs("12.1.1", "Only the recommended versions of TLS are enabled", 1),
    _asvs("12.2.1", "TLS without a fallback between clients and services", 1),
    _asvs("12.3.1", "Connections to databases are encrypted", 1),
    _asvs("12.3.2", "TLS clients verify certificates", 1),
    _asvs("13.2.2", "Backend accounts have the least privilege", 3),
    _asvs("13.3.1", "Secrets are kept by a secrets manager, not in source", 6, 12),
    _asvs("16.4.2", "Logs cannot be modified unnoticed", 14),
)
"""Every control that a promise supports."""


def controls_of(promise: int) -> tuple[Control, ...]:
    """The controls that the promise of this number supports."""
    return tuple(control for control in CONTROLS if promise in control.promises)
