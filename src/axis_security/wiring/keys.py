"""The keys that an app holds, read from its secrets manager once."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from axis_security.auth.peppers import PepperRing
from axis_security.auth.recovery import DigestRing
from axis_security.auth.signing import SigningKeys
from axis_security.core.errors import ConfigError
from axis_security.core.minted import MINTED_BYTES, minted_text, parse_minted
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.rls.sealed import SealKey, SealKeyring

if TYPE_CHECKING:
    from axis_security.ops.secrets.manager import SecretPair

__all__ = ["KINDS", "AppKeys"]

KINDS: Final = ("seal", "cookie", "digest", "pepper")
"""The secrets that an app needs, by kind; ``axis-security secrets mint KIND`` makes each."""


class Pairs(Protocol):
    """Gives a secret and, while a rotation spreads, the one before it: :class:`~axis_security.ops.secrets.manager.SecretManager` fits."""

    def pair(self, name: str) -> SecretPair:
        """The versions in force. Raises: SecretMissing, SecretsUnavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AppKeys:
    """The keys of one app.

    Args:
        seal: seals the context that the database checks.
        cookies: sign cookies and CSRF tokens.
        digests: digest session ids, tokens and recovery codes at rest.
        peppers: go into password hashes; ``None``: no pepper.
    """

    seal: SealKeyring
    cookies: SigningKeys
    digests: DigestRing
    peppers: PepperRing | None

    @classmethod
    def load(cls, secrets: Pairs, *, name: Callable[[str], str] = "axis-{}".format) -> AppKeys:
        """Read them from the secrets manager, each with its previous version while there is one.

        Digest keys and peppers are kept for as long as something at rest was made with them: before a third version replaces the first, see
        what ``axis-security passwords report`` says is still on it.

        Args:
            secrets: the manager.
            name: the name of a kind of secret there; ``axis-seal`` and so on unless told; providers take no slash in a name, a path goes into their prefix.

        Raises:
            ConfigError: a secret is not a key of its kind. The message never shows the text.
            SecretMissing, SecretsUnavailable: the manager has it not, or does not answer.
        """
        found = {kind: secrets.pair(name(kind)) for kind in KINDS}
        seal = found.pop("seal")
        keys = {
            kind: [parse_minted(kind, text) for text in (pair.previous, pair.current) if text is not None] for kind, pair in found.items()
        }
        return cls._of(SealKeyring.from_text(seal.current, seal.previous), keys["cookie"], keys["digest"], keys["pepper"])

    @classmethod
    def generate(cls, *, environment: Environment) -> AppKeys:
        """Fresh keys that nobody keeps, for tests and for trying things out: at the next start every session and sealed context is void.

        Raises:
            ConfigError: in production.
        """
        if environment is Environment.PRODUCTION:
            raise ConfigError(
                what="production keys are not made at start",
                why="every process and every start would have others: sessions end, passwords with a pepper no longer verify",
                fix="keep them in a secrets manager: AppKeys.load(manager)",
            )
        fresh = [[Secret(secrets.token_bytes(MINTED_BYTES))] for _ in range(3)]
        return cls._of(SealKeyring(current=SealKey.generate(1)), *fresh)

    @classmethod
    def _of(cls, seal: SealKeyring, cookies: list[Secret[bytes]], digests: list[Secret[bytes]], peppers: list[Secret[bytes]]) -> AppKeys:
        return cls(
            seal=seal,
            cookies=SigningKeys(cookies),
            digests=DigestRing(active=_id("d", digests[-1]), keys={_id("d", key): key for key in digests}),
            peppers=PepperRing(active=_id("p", peppers[-1]), keys={_id("p", key): key for key in peppers}),
        )

    @staticmethod
    def mint() -> dict[str, Secret[str]]:
        """A fresh text of each kind, to put into the secrets manager."""
        made = {kind: minted_text(kind, secrets.token_bytes(MINTED_BYTES)) for kind in KINDS if kind != "seal"}
        return {"seal": SealKey.generate(1).text(), **made}


def _id(letter: str, key: Secret[bytes]) -> str:
    # From the key itself: the same on every machine and after every rotation, and it tells nothing of a key of 256 random bits.
    return letter + hashlib.sha256(b"axis-security/key-id/v1\0" + key.reveal()).hexdigest()[:12]
