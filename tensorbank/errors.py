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
    """The stable names of what went wrong, for programs: they stay when sentences change.

    Each has a ``description``, one sentence for the documentation; ``ErrorKind`` itself lists all of them.
    """

    description: str

    def __new__(cls, name: str, description: str = "") -> ErrorKind:
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.description = description
        return kind

    # Defaults of the classes of errors.
    ERROR = "error", "Anything else."
    NOT_FOUND = "not-found", "A bank, table, snapshot, sample or object does not exist."
    INVALID_INPUT = "invalid-input", "An argument, name or option cannot be used as it is."
    CONFLICT = "conflict", "Another writer was first."
    STORAGE = "storage", "The store failed."
    INTEGRITY = "integrity", "Stored bytes are not what was written."
    FORMAT = "format", "An archive or a bank is in a format that is not read."

    # Addresses, keys and options.
    BAD_URL = "bad-url", "A URL or folder cannot be that of a bank."
    BAD_ENDPOINT = "bad-endpoint", "An endpoint is not the plain URL of a server."
    BAD_KEY = "bad-key", "A text cannot be the name of an object."
    BAD_RANGE = "bad-range", "A byte range is empty or negative."
    BAD_NAME = "bad-name", "A modality, band or column has a name that cannot be used."
    HALF_A_KEY = "half-a-key", "An access key is given without its secret, or the other way round."
    TWO_KEYS = "two-keys", "Credentials are given in two ways."
    NO_CREDENTIALS = "no-credentials", "No credentials were found."
    NO_PROFILE = "no-profile", "AWS's configuration files have no such profile."
    NO_REGION = "no-region", "No region is configured."
    NO_CERTIFICATES = "no-certificates", "The file of certificates does not exist."
    NO_BOTOCORE = "no-botocore", "Settings need botocore, which is not installed."
    OPTION_OF_ANOTHER_STORE = "option-of-another-store", "An option is for another kind of store."
    UNKNOWN_OPTION = "unknown-option", "A function has no such option."
    UNKNOWN_PROFILE = (
        "unknown-profile",
        "There is no such codec profile, or no such set of normalisation constants.",
    )
    UNSIGNED = "unsigned", "Objects of this store have no signed URLs."
    SETTING = "setting", "A setting of the service is unknown or wrong."
    MISSING_EXTRA = "missing-extra", "A part of TensorBank is not installed."
    MISSING_PACKAGE = "missing-package", "A package that TensorBank can use is not installed."
    BANK_NOT_EMPTY = "bank-not-empty", "The demo needs an empty bank."

    # Object stores.
    UNREACHABLE = "unreachable", "No answer came, or the server failed. It may pass."
    THROTTLED = "throttled", "The store or service is busy. It passes."
    DENIED = "denied", "Access was refused."
    CLOCK = "clock", "Access was refused since two clocks differ."
    TLS = "tls", "The server's certificate is not trusted, or it does not speak TLS."
    STS = "sts", "The service could not make keys of a plan's folders."
    KMS = "kms", "An object is encrypted by a key that cannot be used."
    ARCHIVED = "archived", "An object is in a storage class that is not read at once."
    WRONG_REGION = "wrong-region", "The bucket is in another region, or at another endpoint."
    REDIRECT = "redirect", "An address redirects where no redirect is followed."
    REFUSED = "refused", "The store refuses the request for another reason."
    NO_BUCKET = "no-bucket", "The bucket does not exist."
    NO_OBJECT = "no-object", "The object does not exist."
    EXISTS = "exists", "The object exists already."
    NO_RANGES = "no-ranges", "The server sends whole files where a range is asked for."
    NOT_A_STORE = "not-a-store", "What answers is no object store."
    NO_CONDITIONAL_WRITES = "no-conditional-writes", "The store lets a second conditional write win."
    SHORT_READ = "short-read", "Another number of bytes came than was asked for."
    BAD_ANSWER = "bad-answer", "The answer is not of the range that was asked for."
    CLIENT_PANIC = "client-panic", "The store's client broke down."

    # Disks and processes.
    DISK = "disk", "The disk reports an error."
    DISK_FULL = "disk-full", "The disk is full, or a quota is used up."
    READ_ONLY = "read-only", "The disk or the bank can only be read."
    NO_FOLDER = "no-folder", "A folder does not exist, or a file stands in its place."
    NAME_TOO_LONG = "name-too-long", "The name of a file is longer than the disk takes."
    NO_DESCRIPTORS = "no-descriptors", "Too many files are open."
    BAD_CACHE_FOLDER = "bad-cache-folder", "The name of a cache folder is not understood by what reads it."
    UNSAFE_FOLDER = "unsafe-folder", "A cache folder belongs to somebody else, or is a link."
    UNREADABLE_FILE = "unreadable-file", "A file that was registered is no table."
    ADDRESS = "address", "The service cannot listen at an address."
    NO_THREADS = "no-threads", "The system gives no more threads."
    NO_DEVICE = "no-device", "The device for batches cannot be used."
    FORKED = "forked", "The process was forked after reading had begun."
    CLOSED = "closed", "The reader was closed while reads were under way."
    STALLED = "stalled", "Nothing came for longer than any time limit allows."
    CRASHED = "crashed", "A thread ended in something that is no ordinary error."
    WORKER_LOST = "worker-lost", "Worker processes were ended from outside, several at one task."
    WORKER_START = "worker-start", "A worker process ended before it could take a task."
    UNGUARDED_PROGRAM = (
        "unguarded-program",
        "A program that starts workers begins its work when they import it.",
    )
    SCHEDULER_LOST = "scheduler-lost", "The scheduler of a cluster does not answer, or went away."
    NO_WORKERS = "no-workers", "A cluster has no worker that takes tasks."
    NOT_FINITE = "not-finite", "The loss of a training is no number."
    OTHER_RELEASE = "other-release", "A worker of a cluster has another release of TensorBank."
    WORKERS_MISSING = "workers-missing", "Workers of a data loader did not begin in time."

    # Tables and snapshots.
    UNKNOWN_TABLE = "unknown-table", "The bank has no such table."
    UNKNOWN_SNAPSHOT = "unknown-snapshot", "The table has no such version."
    UNKNOWN_TAG = "unknown-tag", "The table has no such tag."
    TAG_EXISTS = "tag-exists", "The table has a tag of this name already."
    UNKNOWN_MODALITY = "unknown-modality", "The table has no such modality."
    UNKNOWN_BAND = "unknown-band", "The modality has no such band."
    UNKNOWN_SAMPLE = "unknown-sample", "The table has no such sample."
    AMBIGUOUS_TABLE = "ambiguous-table", "The bank has several tables, and none is named."
    AMBIGUOUS_SAMPLE = "ambiguous-sample", "Several samples have this id."
    NO_LIST_OF_TABLES = "no-list-of-tables", "A bank that is served as files does not list its tables."
    LIST_OF_TABLES = "list-of-tables", "The list of tables of a bank that is served as files is damaged."
    LOST_RACE = "lost-race", "Another writer committed some of the same samples."
    OTHER_TABLE = "other-table", "The table holds other modalities than the archive."
    NAN = "nan", "A plain column of the index holds NaN."
    LOG_FORMAT = "log-format", "A table's log is of a kind that is not read."
    DAMAGED_LOG = "damaged-log", "A file of a table's log is missing or damaged."
    MISSING_FILE = "missing-file", "A file that a table's log names does not exist."
    FOREIGN_FILE = "foreign-file", "A table's log names a file outside of the table."
    BAD_PATH = "bad-path", "A table's log names a file outside of the bank."
    BAD_ADDRESS = "bad-address", "The index gives an address where no sample can lie."

    # Statements and plans.
    SQL = "sql", "The statement cannot be answered."
    PARAMETER = "parameter", "A parameter of the statement has no value, or one that cannot be used."
    NOT_REPEATABLE = "not-repeatable", "The statement would give other samples the next time."
    OUTSIDE_BANK = "outside-bank", "The statement reads a file outside of the bank."
    NO_WINDOW = "no-window", "None of the selected tiles has the modality, so its window has no size."
    WEIGHTS = "weights", "Sampling weights cannot be used."
    TOO_LARGE = "too-large", "The answer is larger than what is read into memory at once."
    TRUNCATED = "truncated", "A service gives only the first rows of the answer."
    UNSUPPORTED = "unsupported", "A bank behind a service does not offer that."
    SERVED = "served", "A bank behind a service can only be read."
    OTHER_PLAN = "other-plan", "A service lost the plan and makes another one of the same question."
    OTHER_SERVICE = "other-service", "A saved plan comes from another service than the one that is named."
    UNTRUSTED_SERVICE = "untrusted-service", "A saved plan names a service that nobody said to trust."
    NO_ACCESS = "no-access", "A service does not offer the wanted way to the bytes."
    NO_SERVICE = "no-service", "What answers is no TensorBank service."
    WIRE_VERSION = "wire-version", "A service speaks another version of the protocol."
    FILTER = "filter", "A filter cannot be used."

    # Training.
    DAMAGED_STATE = "damaged-state", "The state of a loader cannot be read."
    OTHER_STATE = "other-state", "The state is of another plan, order or number of workers."
    GIVEN_UP = "given-up", "An older iterator of a loader was used after a newer one had begun."
    WORLD = "world", "Ranks or workers do not fit together."

    # Archives.
    TRUNCATED_ARCHIVE = "truncated-archive", "An archive ends early."
    CORRUPT_MEMBER = "corrupt-member", "A member of an archive is damaged."
    COMPRESSED_ARCHIVE = "compressed-archive", "An archive is compressed as a whole."
    ENCRYPTED_ENTRY = "encrypted-entry", "A member of an archive is encrypted."
    ZIP_METHOD = "zip-method", "A member of a zip is compressed by a method that is not read."
    CODEC = "codec", "Pixels are encoded by a codec that is not read."
    OVER_LIMIT = "over-limit", "An archive claims more than the limits allow."
    STRICT = "strict", "An archive has problems, and strict was asked for."
    NO_MODALITY = "no-modality", "A sample has none of the modalities that are needed."

    # Answers of a service.
    BAD_REQUEST = "bad-request", "The request is not HTTP."
    INVALID_REQUEST = "invalid-request", "The body or a parameter of the request is wrong."
    HTTP = "http", "An answer that HTTP itself explains, such as a wrong method."
    NOT_IMPLEMENTED = "not-implemented", "The request uses a part of HTTP that is not served."
    ADDRESS_TOO_LONG = "address-too-long", "The URL of the request is too long."
    HEADERS_TOO_LARGE = "headers-too-large", "The headers of the request are too large."
    TOO_DEEP = "too-deep", "The JSON of the request is nested too deeply."
    TOO_SLOW = "too-slow", "The request was sent too slowly."
    UNAUTHORIZED = "unauthorized", "The key is missing or not valid."
    SCOPE = "scope", "The key does not allow that."
    NOT_OWNER = "not-owner", "The plan is of another key."
    UNKNOWN_HOST = "unknown-host", "The service does not answer for this host name."
    UNKNOWN_BANK = "unknown-bank", "The service has no such bank."
    UNKNOWN_PLAN = "unknown-plan", "The service has no such plan."
    UNKNOWN_SHARD = "unknown-shard", "The plan has no such shard."
    UNKNOWN_COMPOSITE = "unknown-composite", "There is no such composite of bands."
    UNKNOWN_TIME = "unknown-time", "The sample has no such date."
    GONE = "gone", "The plan has expired."
    CANCELLED = "cancelled", "The plan was cancelled."
    PLAN = "plan", "The plan could not be made."
    NOT_READY = "not-ready", "The plan is being made."
    NO_TENSORS = "no-tensors", "The plan has no tensors to read."
    NO_CHUNK = "no-chunk", "The sample does not have the block."
    NO_GEOREFERENCE = "no-georeference", "The sample has no place on the map."
    TILES = "tiles", "The plan is of tiles, which this view does not show."
    OUTSIDE = "outside", "The window lies outside of the sample."
    PAGE_TOKEN = "page-token", "The token of a page is not valid."
    SQL_OFF = "sql-off", "The service takes no SQL."
    TIME_LIMIT = "time-limit", "The answer took longer than allowed."
    OVERLOADED = "overloaded", "The service has too much to do."
    STORAGE_FULL = "storage-full", "The disk of the service is full."
    WORKER_ENDED = "worker-ended", "The process that worked on the answer ended."
    INTERNAL = "internal", "The service failed by a fault of its own."

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
    """Return a hint such as `` Did you mean 'B08'?``, else the valid names if they are few, else an empty text."""
    names = sorted(set(valid))
    folded = {v.lower(): v for v in names}
    close = difflib.get_close_matches(name.lower(), list(folded), n=n, cutoff=0.6)
    if close:
        return " Did you mean " + " or ".join(repr(folded[c]) for c in close) + "?"
    if names and len(names) <= 12:
        return f" Choose from {', '.join(names)}." if len(names) > 1 else f" There is only {names[0]}."
    return ""
