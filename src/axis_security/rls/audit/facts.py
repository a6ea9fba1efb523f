"""What the catalog says, as plain values keyed by object id. The rules see nothing else, so they need no database to be tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from axis_security.rls.model import quote

__all__ = [
    "PUBLIC",
    "Column",
    "DefaultGrant",
    "Facts",
    "ForeignKey",
    "Function",
    "Index",
    "IndexKey",
    "Membership",
    "Policy",
    "Publication",
    "Relation",
    "Role",
    "RoleSetting",
    "Schema",
]

PUBLIC = 0
"""The object id that stands for everybody among grantees and among a policy's roles."""

Grants = frozenset[tuple[int, str]]
"""Pairs of grantee and privilege."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role and its attributes."""

    oid: int
    name: str
    superuser: bool
    bypassrls: bool
    createdb: bool
    createrole: bool
    replication: bool
    inherit: bool
    login: bool


@dataclass(frozen=True, slots=True)
class Membership:
    """*member* belongs to *group*; *inherit*: has its rights at once; *set_role*: may become it."""

    group: int
    member: int
    inherit: bool
    set_role: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema."""

    oid: int
    name: str
    owner: int
    grants: Grants


@dataclass(frozen=True, slots=True)
class Column:
    """A column; *type_kind* is ``pg_type.typtype`` (``e`` for an enum)."""

    number: int
    name: str
    type: str
    type_kind: str
    notnull: bool
    default: str | None
    identity: bool


@dataclass(slots=True)
class Relation:
    """A table, partition, foreign table, view, materialised view or sequence; *kind* is ``pg_class.relkind``."""

    oid: int
    schema: str
    name: str
    kind: str
    owner: int
    enabled: bool
    forced: bool
    invoker: bool
    grants: Grants
    columns: dict[str, Column] = field(default_factory=dict)
    policies: list[Policy] = field(default_factory=list)
    indexes: list[Index] = field(default_factory=list)
    foreign_keys: list[ForeignKey] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    rules: tuple[str, ...] = ()
    reads: frozenset[int] = frozenset()

    @property
    def label(self) -> str:
        """Schema and name, for people."""
        return f"{self.schema}.{self.name}"

    def label_of(self, policy: Policy) -> str:
        """One of its policies, for people."""
        return f"{self.label}: policy {policy.name}"

    @property
    def sql(self) -> str:
        """The quoted name."""
        return quote(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy; *tables* and *functions* are what its expressions use besides its own table's columns."""

    oid: int
    name: str
    command: str
    permissive: bool
    roles: frozenset[int]
    using: str | None
    check: str | None
    tables: frozenset[int]
    functions: frozenset[int]

    @property
    def text(self) -> str:
        """Both expressions."""
        return f"{self.using or ''} {self.check or ''}"

    def covers(self, command: str) -> bool:
        """Whether it has a say in *command*."""
        return self.command in ("ALL", command)


@dataclass(frozen=True, slots=True)
class IndexKey:
    """One key of an index; *leaks* names the operators of its family that are not leakproof."""

    column: str
    opclass: str
    leaks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """An index; a key whose column is empty is an expression."""

    oid: int
    name: str
    keys: tuple[IndexKey, ...]
    unique: bool
    primary: bool
    exclusion: bool
    valid: bool
    partial: bool
    constraint: str | None
    definition: str


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key."""

    name: str
    columns: tuple[str, ...]
    target: int
    target_columns: tuple[str, ...]
    on_delete: str
    on_update: str
    valid: bool


@dataclass(frozen=True, slots=True)
class Function:
    """A function or procedure outside the system's schemas; *bound* is a body whose names were bound at definition."""

    oid: int
    schema: str
    name: str
    signature: str
    owner: int
    definer: bool
    volatility: str
    leakproof: bool
    parallel: str
    settings: tuple[str, ...]
    bound: bool
    language: str
    source: str
    grants: Grants

    @property
    def sql(self) -> str:
        """The quoted name with argument types."""
        return f"{quote(self.schema, self.name)}({self.signature})"

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.schema}.{self.name}({self.signature})"


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication; *tables* has each table it sends, with whether a row filter holds for it."""

    name: str
    all_tables: bool
    tables: Mapping[int, bool]


@dataclass(frozen=True, slots=True)
class DefaultGrant:
    """What objects that *creator* makes later are granted; *schema* is empty for every schema."""

    creator: int
    schema: str
    kind: str
    grants: Grants


@dataclass(frozen=True, slots=True)
class RoleSetting:
    """A setting stored for a role (0: every role) or a database."""

    role: int
    database: str
    name: str
    value: str


@dataclass(slots=True)
class Facts:
    """One database at one moment."""

    version: int = 0
    database: str = ""
    roles: dict[int, Role] = field(default_factory=dict)
    memberships: list[Membership] = field(default_factory=list)
    schemas: dict[str, Schema] = field(default_factory=dict)
    relations: dict[int, Relation] = field(default_factory=dict)
    functions: dict[int, Function] = field(default_factory=dict)
    publications: list[Publication] = field(default_factory=list)
    default_grants: list[DefaultGrant] = field(default_factory=list)
    role_settings: list[RoleSetting] = field(default_factory=list)
