"""The tables. None of them mentions tenants beyond their key: the plan gives it a default and the policies hold it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from sqlalchemy import FetchedValue, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from axis_security.crypto.attribute import sealed
from axis_security.crypto.blindindex import BlindIndex
from axis_security.crypto.columns import EncryptedText

__all__ = ["STAGES", "Attachment", "Base", "Contact", "Deal", "Profile"]

STAGES = ("lead", "talking", "offer", "won", "lost")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """The CRM's tables."""


class Profile(Base):
    """Who a member is, as colleagues see them."""

    __tablename__ = "profile"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID] = mapped_column(server_default=FetchedValue())
    user_id: Mapped[str]
    name: Mapped[str]
    email: Mapped[str]


class Contact(Base):
    """A person that the workspace does business with. Address, phone and notes are sealed; the address is found by a blind index."""

    __tablename__ = "contact"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID] = mapped_column(server_default=FetchedValue())
    owner_id: Mapped[str]
    name: Mapped[str]
    company: Mapped[str] = mapped_column(default="")
    email = sealed("contact.email", index=BlindIndex("email-v1"))
    phone = sealed("contact.phone")
    notes: Mapped[str | None] = mapped_column(EncryptedText("contact.notes"))
    created_at: Mapped[datetime] = mapped_column(default=_now)
    deals: Mapped[list[Deal]] = relationship(
        back_populates="contact", cascade="all, delete-orphan", passive_deletes=True, order_by="Deal.title"
    )
    attachments: Mapped[list[Attachment]] = relationship(
        back_populates="contact", cascade="all, delete-orphan", passive_deletes=True, order_by="Attachment.filename"
    )


class Deal(Base):
    """Something that may be sold."""

    __tablename__ = "deal"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID] = mapped_column(server_default=FetchedValue())
    contact_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("contact.id", ondelete="CASCADE"))
    title: Mapped[str]
    amount: Mapped[int] = mapped_column(default=0)
    stage: Mapped[str] = mapped_column(default=STAGES[0])
    contact: Mapped[Contact] = relationship(back_populates="deals")


class Attachment(Base):
    """A file about a contact. The bytes are a sealed object under the row's id; the row belongs to whom the contact belongs to."""

    __tablename__ = "attachment"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    contact_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("contact.id", ondelete="CASCADE"))
    filename: Mapped[str]
    media_type: Mapped[str]
    size: Mapped[int]
    contact: Mapped[Contact] = relationship(back_populates="attachments")
