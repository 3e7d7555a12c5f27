"""The errors of TensorBank: few classes, by what the caller will do next.

Each carries a stable ``kind`` for programs and a sentence for people: what was got, what to do
next, and the nearest valid names where a name was wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum

__all__ = [
    "ConflictError",
    "ErrorKind",
    "FormatError",
    "IntegrityError",
    "InvalidInputError",
    "NotFoundError",
    "StorageError",
    "TensorBankError",
    "as_error",
    "nearest",
]


class ErrorKind(StrEnum):
    """The stable names of what went wrong, for programs: they stay when sentences change."""

    ADDRESS = "address"
    ADDRESS_TOO_LONG = "address-too-long"
    AMBIGUOUS_SAMPLE = "ambiguous-sample"
    AMBIGUOUS_TABLE = "ambiguous-table"
    ARCHIVED = "archived"
    BAD_ADDRESS = "bad-address"
    BAD_ANSWER = "bad-answer"
    BAD_CACHE_FOLDER = "bad-cache-folder"
    BAD_ENDPOINT = "bad-endpoint"
    BAD_KEY = "bad-key"
    BAD_NAME = "bad-name"
    BAD_PATH = "bad-path"
    BAD_RANGE = "bad-range"
    BAD_REQUEST = "bad-request"
    BAD_URL = "bad-url"
    BANK_NOT_EMPTY = "bank-not-empty"
    CANCELLED = "cancelled"
    CLIENT_PANIC = "client-panic"
    CLOCK = "clock"
    CLOSED = "closed"
    CODEC = "codec"
    COMPRESSED_ARCHIVE = "compressed-archive"
    CONFLICT = "conflict"
    CORRUPT_MEMBER = "corrupt-member"
    CRASHED = "crashed"
    DAMAGED_LOG = "damaged-log"
    DAMAGED_STATE = "damaged-state"
    DENIED = "denied"
    DISK = "disk"
    DISK_FULL = "disk-full"
    ENCRYPTED_ENTRY = "encrypted-entry"
    ERROR = "error"
    EXISTS = "exists"
    FILTER = "filter"
    FOREIGN_FILE = "foreign-file"
    FORKED = "forked"
    FORMAT = "format"
    GIVEN_UP = "given-up"
    GONE = "gone"
    HALF_A_KEY = "half-a-key"
    HEADERS_TOO_LARGE = "headers-too-large"
    HTTP = "http"
    INTEGRITY = "integrity"
    INTERNAL = "internal"
    INVALID_INPUT = "invalid-input"
    INVALID_REQUEST = "invalid-request"
    KMS = "kms"
    LIST_OF_TABLES = "list-of-tables"
    LOG_FORMAT = "log-format"
    LOST_RACE = "lost-race"
    MISSING_EXTRA = "missing-extra"
    MISSING_FILE = "missing-file"
    MISSING_PACKAGE = "missing-package"
    NAME_TOO_LONG = "name-too-long"
    NAN = "nan"
    NOT_A_STORE = "not-a-store"
    NOT_FOUND = "not-found"
    NOT_IMPLEMENTED = "not-implemented"
    NOT_OWNER = "not-owner"
    NOT_READY = "not-ready"
    NOT_REPEATABLE = "not-repeatable"
    NO_ACCESS = "no-access"
    NO_BOTOCORE = "no-botocore"
    NO_BUCKET = "no-bucket"
    NO_CERTIFICATES = "no-certificates"
    NO_CHUNK = "no-chunk"
    NO_CONDITIONAL_WRITES = "no-conditional-writes"
    NO_CREDENTIALS = "no-credentials"
    NO_DESCRIPTORS = "no-descriptors"
    NO_DEVICE = "no-device"
    NO_FOLDER = "no-folder"
    NO_GEOREFERENCE = "no-georeference"
    NO_LIST_OF_TABLES = "no-list-of-tables"
    NO_MODALITY = "no-modality"
    NO_OBJECT = "no-object"
    NO_PROFILE = "no-profile"
    NO_RANGES = "no-ranges"
    NO_REGION = "no-region"
    NO_SERVICE = "no-service"
    NO_TENSORS = "no-tensors"
    NO_THREADS = "no-threads"
    NO_WINDOW = "no-window"
    OPTION_OF_ANOTHER_STORE = "option-of-another-store"
    OTHER_PLAN = "other-plan"
    OTHER_SERVICE = "other-service"
    OTHER_STATE = "other-state"
    OTHER_TABLE = "other-table"
    OUTSIDE = "outside"
    OUTSIDE_BANK = "outside-bank"
    OVERLOADED = "overloaded"
    OVER_LIMIT = "over-limit"
    PAGE_TOKEN = "page-token"
    PARAMETER = "parameter"
    PLAN = "plan"
    READ_ONLY = "read-only"
    REDIRECT = "redirect"
    REFUSED = "refused"
    SCOPE = "scope"
    SERVED = "served"
    SETTING = "setting"
    SHORT_READ = "short-read"
    SQL = "sql"
    SQL_OFF = "sql-off"
    STALLED = "stalled"
    STORAGE = "storage"
    STORAGE_FULL = "storage-full"
    STRICT = "strict"
    STS = "sts"
    THROTTLED = "throttled"
    TILES = "tiles"
    TIME_LIMIT = "time-limit"
    TLS = "tls"
    TOO_DEEP = "too-deep"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    TRUNCATED = "truncated"
    TRUNCATED_ARCHIVE = "truncated-archive"
    TWO_KEYS = "two-keys"
    UNAUTHORIZED = "unauthorized"
    UNKNOWN_BAND = "unknown-band"
    UNKNOWN_BANK = "unknown-bank"
    UNKNOWN_COMPOSITE = "unknown-composite"
    UNKNOWN_HOST = "unknown-host"
    UNKNOWN_MODALITY = "unknown-modality"
    UNKNOWN_OPTION = "unknown-option"
    UNKNOWN_PLAN = "unknown-plan"
    UNKNOWN_PROFILE = "unknown-profile"
    UNKNOWN_SAMPLE = "unknown-sample"
    UNKNOWN_SHARD = "unknown-shard"
    UNKNOWN_SNAPSHOT = "unknown-snapshot"
    UNKNOWN_TABLE = "unknown-table"
    UNKNOWN_TIME = "unknown-time"
    UNREACHABLE = "unreachable"
    UNREADABLE_FILE = "unreadable-file"
    UNSAFE_FOLDER = "unsafe-folder"
    UNSIGNED = "unsigned"
    UNSUPPORTED = "unsupported"
    UNTRUSTED_SERVICE = "untrusted-service"
    WEIGHTS = "weights"
    WIRE_VERSION = "wire-version"
    WORKERS_MISSING = "workers-missing"
    WORKER_ENDED = "worker-ended"
    WORKER_LOST = "worker-lost"
    WORLD = "world"
    WRONG_REGION = "wrong-region"
    ZIP_METHOD = "zip-method"

    @classmethod
    def named(cls, name: object, default: ErrorKind) -> ErrorKind:
        """Return the kind of a name that another program sent, which may know more kinds than this one."""
        try:
            return cls(str(name))
        except ValueError:
            return default


class TensorBankError(Exception):
    """The base of all errors that TensorBank raises on purpose.

    Parameters
    ----------
    message
        One sentence for the person who reads it.
    kind
        The name for programs; that of the class where not given.
    """

    default_kind = ErrorKind.ERROR

    def __init__(self, message: str, *, kind: ErrorKind | None = None) -> None:
        super().__init__(message)
        self.kind = kind or self.default_kind

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), str(self), self.kind))


def _rebuild(cls: type[TensorBankError], message: str, kind: ErrorKind) -> TensorBankError:
    return cls(message, kind=kind)


class NotFoundError(TensorBankError, LookupError):
    """A bank, table, snapshot, sample or object does not exist."""

    default_kind = ErrorKind.NOT_FOUND


class InvalidInputError(TensorBankError, ValueError):
    """The caller's input cannot be used as it is: SQL, names, options."""

    default_kind = ErrorKind.INVALID_INPUT


class ConflictError(TensorBankError):
    """An error because another writer was first, or the store cannot arbitrate between writers."""

    default_kind = ErrorKind.CONFLICT


class StorageError(TensorBankError, OSError):
    """The object store refused, timed out or is not configured.

    ``retry_after_s`` is how long a store of kind ``throttled`` asked to be left alone; None if it did not say.
    """

    default_kind = ErrorKind.STORAGE
    retry_after_s: float | None = None


class IntegrityError(TensorBankError):
    """The error that stored bytes are not what was written: wrong length or checksum."""

    default_kind = ErrorKind.INTEGRITY


class FormatError(TensorBankError, ValueError):
    """An archive or a bank is not in a format that TensorBank reads."""

    default_kind = ErrorKind.FORMAT


def as_error(failed: BaseException) -> Exception:
    """Return what ended a thread as an error for whoever waits for it.

    A panic of a native library, or an exit, is no ``Exception``: raised in another thread it would end more than it should.
    """
    if isinstance(failed, Exception):
        return failed
    error = StorageError(
        f"a reading thread was ended by {type(failed).__name__}: {str(failed)[:200]}", kind=ErrorKind.CRASHED
    )
    error.__cause__ = failed
    return error


def nearest(name: str, valid: Iterable[str], *, n: int = 3) -> str:
    """A hint such as `` Did you mean 'B08'?``, or the valid names, or nothing at all."""
    names = sorted(set(valid))
    folded = {v.lower(): v for v in names}
    close = difflib.get_close_matches(name.lower(), list(folded), n=n, cutoff=0.6)
    if close:
        return " Did you mean " + " or ".join(repr(folded[c]) for c in close) + "?"
    if names and len(names) <= 12:
        return " There is " + ", ".join(names) + "."
    return ""
