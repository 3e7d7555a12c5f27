"""Tags: names of snapshots, such as ``paper-v1``, which keep what they name.

A tag is one object, ``<table>/tags/<name>.json``, made by a conditional create. It is never moved: who wants the name for another
snapshot deletes it, and makes it anew.
"""

from __future__ import annotations

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from tensorbank.arguments import instance
from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    TensorBankError,
    nearest,
)
from tensorbank.retention.owners import Owner, this_process
from tensorbank.retention.sealed_json import opened, sealed
from tensorbank.storage import Store

__all__ = ["TAGS", "Tag", "check_tag_name", "create_tag", "delete_tag", "find_tag", "list_tags", "tag_key"]

TAGS = "tags"
FORMAT = 1
MAX_NAME_CHARACTERS = 64
MAX_MESSAGE_CHARACTERS = 1000
N_THREADS = 16
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_JSON = ".json"


@dataclass(frozen=True, slots=True)
class Tag:
    """A name of one snapshot of a table.

    ``created`` is in UTC, by the clock of the process that made the tag. ``id`` is another for a tag of the same name that is
    made later.
    """

    name: str
    id: str
    table_id: str
    version: int
    message: str
    created: datetime
    owner: Owner

    def to_bytes(self) -> bytes:
        """Return the object of the tag."""
        created = self.created.astimezone(UTC).isoformat(timespec="seconds")
        return sealed({"format": FORMAT, "kind": "tag", **asdict(self), "created": created})

    @classmethod
    def from_bytes(cls, data: bytes, url: str) -> Tag:
        """Return the tag of an object.

        Raises
        ------
        IntegrityError
            The object is damaged, or holds no tag of this format.
        """
        fields = opened(data, url)
        try:
            if (fields.pop("format"), fields.pop("kind")) != (FORMAT, "tag"):
                raise ValueError("another format")
            owner = Owner(**fields.pop("owner"))
            created = datetime.fromisoformat(fields.pop("created"))
            return cls(**fields, owner=owner, created=created)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"{url} holds no tag that this version reads: {error}; if nobody needs it any more, delete it"
            ) from error


def check_tag_name(name: object) -> str:
    """Return the name of a tag.

    Raises
    ------
    InvalidInputError
        It cannot be one.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARACTERS:
        raise InvalidInputError(
            f"{str(name)[:100]!r} cannot name a tag; take a letter, then letters, digits, '.', '_' and '-', at most "
            f"{MAX_NAME_CHARACTERS} in all, such as paper-v1"
        )
    return name


def tag_key(table: str, name: str) -> str:
    """Return the key of a tag's object."""
    return f"{table}/{TAGS}/{check_tag_name(name)}{_JSON}"


def create_tag(
    store: Store,
    table: str,
    name: str,
    *,
    table_id: str,
    version: int,
    message: str = "",
    now: datetime | None = None,
) -> Tag:
    """Give a snapshot a name, which must be free.

    Raises
    ------
    InvalidInputError
        The name cannot be one, or the message is too long.
    ConflictError
        The table has a tag of this name already.
    StorageError
        The store cannot be written.
    """
    if len(instance("message", message, str, "give a text")) > MAX_MESSAGE_CHARACTERS:
        raise InvalidInputError(
            f"the message of a tag is a text of at most {MAX_MESSAGE_CHARACTERS} characters"
        )
    created = (now or datetime.now(UTC)).replace(microsecond=0)
    tag = Tag(check_tag_name(name), uuid.uuid4().hex, table_id, version, message, created, this_process())
    key = tag_key(table, name)
    data = tag.to_bytes()
    try:
        store.create(key, data)
    except ConflictError:
        with suppress(NotFoundError):
            if store.get(key) == data:  # made by a try whose answer was lost
                return tag
        raise ConflictError(
            f"table {table} has a tag {name!r} already, and tags are never moved; delete it first, or take another name",
            kind=ErrorKind.TAG_EXISTS,
        ) from None
    return tag


def find_tag(store: Store, table: str, name: str) -> Tag:
    """Return a tag of a table by its name.

    Raises
    ------
    NotFoundError
        There is none; the nearest names are told.
    IntegrityError
        Its object is damaged.
    """
    try:
        return _stored(store, table, name)
    except NotFoundError as error:
        if error.kind == ErrorKind.NO_BUCKET:
            raise
        raise _unknown(store, table, name) from None


def list_tags(store: Store, table: str) -> tuple[list[Tag], list[IntegrityError]]:
    """Return the tags of a table by their names, and what is said of those whose objects are damaged."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(lambda name: _read(store, table, name), _names(store, table)))
    tags = [tag for tag in found if isinstance(tag, Tag)]
    return tags, [error for error in found if isinstance(error, IntegrityError)]


def delete_tag(store: Store, table: str, name: str) -> None:
    """Take a name from a snapshot.

    Raises
    ------
    NotFoundError
        There is no such tag; the nearest names are told.
    """
    if not store.exists(tag_key(table, name)):
        raise _unknown(store, table, name)
    store.delete(tag_key(table, name))


def _stored(store: Store, table: str, name: str) -> Tag:
    """Read a tag, whose object has to be that of the name: another tag's has a sound checksum, too."""
    key = tag_key(table, name)
    tag = Tag.from_bytes(store.get(key), f"{store.url}/{key}")
    if tag.name != name:
        raise IntegrityError(
            f"{store.url}/{key} holds the tag {tag.name!r}; restore it, or delete it if nobody needs it"
        )
    return tag


def _read(store: Store, table: str, name: str) -> Tag | IntegrityError | None:
    try:
        return _stored(store, table, name)
    except NotFoundError:  # deleted meanwhile
        return None
    except IntegrityError as error:
        return error


def _names(store: Store, table: str) -> list[str]:
    """Return the names of the tags of a table, sorted; objects of other names are no tags."""
    keys = [info.key.rpartition("/")[2] for info in store.objects(f"{table}/{TAGS}")]
    names = [key.removesuffix(_JSON) for key in keys if key.endswith(_JSON)]
    return sorted(n for n in names if _NAME.fullmatch(n) and len(n) <= MAX_NAME_CHARACTERS)


def _unknown(store: Store, table: str, name: str) -> NotFoundError:
    names = []
    with suppress(TensorBankError):  # as of files behind a web server, which cannot be listed
        names = _names(store, table)
    hint = nearest(name, names) or ("" if names else " It has no tag at all.")
    return NotFoundError(f"table {table} has no tag {name!r}.{hint}", kind=ErrorKind.UNKNOWN_TAG)
