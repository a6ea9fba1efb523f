"""Contacts, deals and files: pages, and the same as a JSON interface."""

from __future__ import annotations

import shutil
import uuid
from typing import Annotated, Any, Final

from examples.crm.models import STAGES, Attachment, Contact, Deal, Profile
from examples.crm.pages import back_to, own_id, page
from examples.crm.security import Site, caps
from fastapi import APIRouter, Form, HTTPException, Query, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from axis_security import current_principal, requires
from axis_security.core.errors import AxisError

__all__ = ["router"]

MOST_BYTES: Final = 10_000_000
_PLAIN: Final = frozenset({"text/plain", "application/pdf", "image/png", "image/jpeg"})

Text = Annotated[str, Form(max_length=400, pattern=r"^[^\x00]*$")]  # PostgreSQL keeps no NUL
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "The body is no JSON text."},
    404: {
        "description": "There is no such record in this workspace.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
}


class NotFound(AxisError):
    """No such record here; another workspace's record is no such record."""

    code = "crm.not_found"
    http_status = 404
    public_text = "There is no such record."

    def __init__(self) -> None:
        super().__init__(what="no such record", why="its id is unknown in this workspace", fix="go back to the list")


class ContactIn(BaseModel):
    """What a client may say about a contact. Anything else is refused: nobody assigns a tenant, an owner or an id."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")
    company: str = Field(default="", max_length=200, pattern=r"^[^\x00]*$")
    email: str = Field(default="", max_length=320, pattern=r"^[^\x00]*$")
    phone: str = Field(default="", max_length=50, pattern=r"^[^\x00]*$")
    notes: str = Field(default="", max_length=4000, pattern=r"^[^\x00]*$")


class ContactOut(BaseModel):
    """A contact."""

    id: uuid.UUID
    name: str
    company: str
    email: str | None
    phone: str | None
    notes: str | None


class DealOut(BaseModel):
    """A deal."""

    id: uuid.UUID
    contact_id: uuid.UUID
    title: str
    amount: int
    stage: str


def _out(contact: Contact) -> ContactOut:
    return ContactOut(
        id=contact.id, name=contact.name, company=contact.company, email=contact.email, phone=contact.phone, notes=contact.notes
    )


def _given(**fields: str) -> ContactIn:
    try:
        return ContactIn(**fields)
    except ValidationError:
        raise HTTPException(422) from None


def _fill(contact: Contact, given: ContactIn) -> Contact:
    contact.name, contact.company = _whole(given.name), _whole(given.company)
    contact.email, contact.phone, contact.notes = _whole(given.email) or None, _whole(given.phone) or None, _whole(given.notes) or None
    return contact


def _whole(text: str) -> str:
    # A lone surrogate is no text that a database can keep.
    return text.encode("utf-8", "replace").decode("utf-8").strip()


def _found(db: Session, kind: type[Any], key: uuid.UUID) -> Any:
    row = db.get(kind, key)
    if row is None:
        raise NotFound
    return row


def _remove(site: Site, key: uuid.UUID) -> None:
    """The contact with its deals and files; what the object store keeps goes last, when the rows are gone for good."""
    with site.db() as db:
        found = _found(db, Contact, key)
        files = [str(each.id) for each in found.attachments]
        db.delete(found)
        db.commit()
    for name in files:
        site.objects.delete(name)


def router(site: Site) -> APIRouter:
    """The routes."""
    html = APIRouter(include_in_schema=False)
    api = APIRouter(prefix="/api", tags=["records"], responses=_ANSWERS)

    @html.get("/contacts")
    @requires(caps.contacts.read)
    def contacts(email: str = "", q: str = "") -> Response:
        statement = select(Contact).order_by(Contact.name).limit(200)
        if email.strip():
            statement = statement.where(Contact.email == _whole(email))  # by blind index: the address itself is sealed
        if q.strip():
            statement = statement.where(
                func.strpos(func.lower(Contact.name + " " + Contact.company), _whole(q).lower().replace("\x00", "")) > 0
            )
        with site.db() as db:
            found = db.scalars(statement).all()
            return page("contacts.html", contacts=found, email=email, q=q, may_write=_may(site, caps.contacts.write))

    @html.post("/contacts")
    @requires(caps.contacts.write)
    def add(name: Text, company: Text = "", email: Text = "", phone: Text = "") -> Response:
        if not name.strip():
            return back_to("/contacts")
        with site.db() as db:
            contact = _fill(Contact(owner_id=own_id()), _given(name=name, company=company, email=email, phone=phone))
            db.add(contact)
            db.commit()
            return back_to(f"/contacts/{contact.id}")

    @html.get("/contacts/{key}")
    @requires(caps.contacts.read)
    def contact(key: uuid.UUID) -> Response:
        with site.db() as db:
            found = _found(db, Contact, key)
            owner = db.scalar(select(Profile.name).where(Profile.user_id == found.owner_id))
            return page(
                "contact.html",
                contact=found,
                owner=owner or "somebody who left",
                stages=STAGES,
                may_write=_may(site, caps.contacts.write),
                may_deal=_may(site, caps.deals.write),
                may_file=_may(site, caps.files.write),
            )

    @html.post("/contacts/{key}")
    @requires(caps.contacts.write)
    def change(
        key: uuid.UUID,
        name: Text,
        company: Text = "",
        email: Text = "",
        phone: Text = "",
        notes: Annotated[str, Form(max_length=4000, pattern=r"^[^\x00]*$")] = "",
    ) -> Response:
        with site.db() as db:
            _fill(_found(db, Contact, key), _given(name=name or "?", company=company, email=email, phone=phone, notes=notes))
            db.commit()
        return back_to(f"/contacts/{key}")

    @html.post("/contacts/{key}/delete")
    @requires(caps.contacts.write)
    def remove(key: uuid.UUID) -> Response:
        _remove(site, key)
        return back_to("/contacts")

    @html.post("/contacts/{key}/deals")
    @requires(caps.deals.write)
    def add_deal(key: uuid.UUID, title: Text, amount: Annotated[int, Form(ge=0, le=1_000_000_000)] = 0) -> Response:
        with site.db() as db:
            _found(db, Contact, key)
            db.add(Deal(contact_id=key, title=_whole(title) or "Deal", amount=amount))
            db.commit()
        return back_to(f"/contacts/{key}")

    @html.get("/deals")
    @requires(caps.deals.read)
    def deals() -> Response:
        with site.db() as db:
            rows = db.execute(select(Deal, Contact.name).join(Contact, Contact.id == Deal.contact_id).order_by(Deal.title)).all()
        columns = {stage: [(deal, name) for deal, name in rows if deal.stage == stage] for stage in STAGES}
        return page("deals.html", columns=columns, stages=STAGES, may_write=_may(site, caps.deals.write))

    @html.post("/deals/{key}/stage")
    @requires(caps.deals.write)
    def move(key: uuid.UUID, stage: Text) -> Response:
        if stage not in STAGES:
            raise HTTPException(422)
        with site.db() as db:
            _found(db, Deal, key).stage = stage
            db.commit()
        return back_to("/deals")

    @html.post("/contacts/{key}/files")
    @requires(caps.files.write)
    def attach(key: uuid.UUID, file: UploadFile) -> Response:
        size = file.size or 0
        if not 0 < size <= MOST_BYTES:
            raise HTTPException(413)
        with site.db() as db:
            _found(db, Contact, key)
            row = Attachment(
                id=uuid.uuid4(),
                contact_id=key,
                filename=_whole(file.filename or "file")[:200],
                media_type=file.content_type or "",
                size=size,
            )
            with site.objects.open_write(str(row.id)) as sealed:
                shutil.copyfileobj(file.file, sealed)
            db.add(row)
            db.commit()
        return back_to(f"/contacts/{key}")

    @html.get("/files/{key}")
    @requires(caps.files.read)
    def download(key: uuid.UUID) -> Response:
        with site.db() as db:
            row = _found(db, Attachment, key)
        with site.objects.open_read(str(key)) as sealed:
            body = sealed.read()
        kind = row.media_type if row.media_type in _PLAIN else "application/octet-stream"
        name = "".join(
            letter if letter.isalnum() or letter in "._-" else "_" for letter in row.filename.encode("ascii", "replace").decode()
        )
        return Response(body, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})

    # --- the same for programs

    @api.get("/contacts")
    @requires(caps.contacts.read)
    def api_contacts(limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[ContactOut]:
        with site.db() as db:
            return [_out(each) for each in db.scalars(select(Contact).order_by(Contact.name).limit(limit))]

    @api.post("/contacts", status_code=201)
    @requires(caps.contacts.write)
    def api_add(given: ContactIn) -> ContactOut:
        with site.db() as db:
            contact = _fill(Contact(owner_id=own_id()), given)
            db.add(contact)
            db.commit()
            return _out(contact)

    @api.get("/contacts/{key}")
    @requires(caps.contacts.read)
    def api_contact(key: uuid.UUID) -> ContactOut:
        with site.db() as db:
            return _out(_found(db, Contact, key))

    @api.put("/contacts/{key}")
    @requires(caps.contacts.write)
    def api_change(key: uuid.UUID, given: ContactIn) -> ContactOut:
        with site.db() as db:
            contact = _fill(_found(db, Contact, key), given)
            db.commit()
            return _out(contact)

    @api.delete("/contacts/{key}", status_code=204)
    @requires(caps.contacts.write)
    def api_remove(key: uuid.UUID) -> None:
        _remove(site, key)

    @api.get("/deals")
    @requires(caps.deals.read)
    def api_deals() -> list[DealOut]:
        with site.db() as db:
            rows = db.scalars(select(Deal).order_by(Deal.title).limit(200))
            return [
                DealOut(id=each.id, contact_id=each.contact_id, title=each.title, amount=each.amount, stage=each.stage) for each in rows
            ]

    whole = APIRouter()
    whole.include_router(html)
    whole.include_router(api)
    return whole


def _may(site: Site, capability: Any) -> bool:
    return site.axis.policy.allows(current_principal(), capability)
