"""Translate errors of a store's client, by what the store says: status, S3's code and message, the system's number.

The client hands out text only. Its report begins with what was done and what came back, and ends with a dump of the chain of
causes, in which the innermost stands last.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping

from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
    TensorBankError,
)

__all__ = ["EXPIRED", "as_ours", "innermost", "is_panic", "of_system", "says_why"]

EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "RequestExpired", "Request has expired")
"""The codes by which S3 refuses keys that have expired; some of them come with status 400."""
REGION_CODES = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "IncorrectEndpoint",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
BUSY_CODES = frozenset(
    {"RequestLimitExceeded", "ServiceUnavailable", "SlowDown", "ThrottlingException", "TooManyRequests"}
)
CERTIFICATES: Mapping[str, str] = {
    "UnknownIssuer": ": its authority is unknown; AWS_CA_BUNDLE names further ones",
    "CaUsedAsEndEntity": ": it is made for an authority; AWS_CA_BUNDLE names authorities",
    "NotValidForName": ": it is of another host; use the name that it is made for",
    "not valid for name": ": it is of another host; use the name that it is made for",
    "Expired": ": it has expired, or a clock is wrong",
    "NotValidYet": ": it is not valid yet, or a clock is wrong",
}
"""The sentence for each way in which a certificate is wrong, by TLS's name for it."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
OF_SYSTEM: Mapping[int, tuple[ErrorKind, str]] = {
    errno.EROFS: (ErrorKind.READ_ONLY, "the disk is read-only"),
    errno.EACCES: (ErrorKind.DENIED, "this user may not, by the rights of the file or folder"),
    errno.EPERM: (ErrorKind.DENIED, "this user may not, by the rights of the file or folder"),
    errno.ENOSPC: (ErrorKind.DISK_FULL, "the disk is full"),
    errno.EDQUOT: (ErrorKind.DISK_FULL, "the quota of this user on the disk is used up"),
    errno.EFBIG: (ErrorKind.DISK_FULL, "the disk takes no file of this size"),
    errno.EMFILE: (
        ErrorKind.NO_DESCRIPTORS,
        "this process has too many files open; raise the limit, such as by ulimit -n 4096",
    ),
    errno.ENFILE: (ErrorKind.NO_DESCRIPTORS, "this machine has too many files open"),
    errno.ENAMETOOLONG: (
        ErrorKind.NAME_TOO_LONG,
        "the name of a file or folder is longer than the disk takes",
    ),
    errno.EIO: (ErrorKind.DISK, "the disk reports an error of reading or writing"),
    errno.ELOOP: (ErrorKind.DISK, "its links lead in a circle"),
    errno.ENOTDIR: (ErrorKind.NO_FOLDER, "a file stands where a folder has to be"),
    errno.EEXIST: (ErrorKind.NO_FOLDER, "a file stands where a folder has to be"),
    errno.EISDIR: (ErrorKind.NO_OBJECT, "a folder stands where a file has to be"),
    errno.ESTALE: (ErrorKind.UNREACHABLE, "the network's disk has lost the file; it may have been replaced"),
    errno.EHOSTDOWN: (ErrorKind.UNREACHABLE, "the network's disk does not answer"),
}
"""The kind and sentence of what a system refuses."""


def is_panic(error: BaseException) -> bool:
    """Tell whether a client written in Rust has panicked: an exception that is no ``Exception``."""
    return type(error).__name__ == "PanicException"


def as_ours(error: BaseException, where: str, bucket: str, endpoint: str | None = None) -> TensorBankError:
    """Translate a client's error.

    Parameters
    ----------
    where
        URL of the object or folder that was asked for.
    bucket
        Bucket, or host, of the object.
    endpoint
        Endpoint of the server, named where nothing that it answers can be understood.
    """
    text = str(error)
    told = text.split("Debug source:", 1)[0]
    if is_panic(error):
        return StorageError(
            f"{where}: the client library of the store crashed: {_line(told)}", kind=ErrorKind.CLIENT_PANIC
        )
    if "Could not parse path" in told or "Error parsing Path" in told:
        return InvalidInputError(
            f"{where} is not the name of an object: {_line(told)}", kind=ErrorKind.BAD_KEY
        )
    status, code, message = _answer(told)
    if "redirect without LOCATION" in told:
        status = 301
    if code and status is None:  # of one object among several in one request
        status, message = (403 if code == "AccessDenied" else 400), message or _line(told)
    name = type(error).__name__
    if code == "NoSuchBucket":
        return NotFoundError(f"there is no bucket {bucket}", kind=ErrorKind.NO_BUCKET)
    if code and status is not None and status not in (404, 409, 412):
        return _of_code(where, status, code, message, told)
    if name in ("AlreadyExistsError", "PreconditionError", "FileExistsError") or status in (409, 412):
        return ConflictError(f"{where} exists already", kind=ErrorKind.EXISTS)
    if status == 404 or (status is None and name in ("FileNotFoundError", "NotFoundError")):
        return NotFoundError(f"there is no object {where}", kind=ErrorKind.NO_OBJECT)
    if status is not None:
        return _of_code(where, status, code, message, told)
    system = of_system(error, where)
    return system if system is not None else _of_silence(text, where, endpoint)


def says_why(error: BaseException) -> bool:
    """Tell whether a client's error holds S3's code;
    answers to HEAD have none, and of redirects the client keeps it.
    """
    return "<Code>" in str(error)


def of_system(error: BaseException, where: str) -> StorageError | NotFoundError | None:
    """Translate an error of the operating system about a file or folder; None if it has no name here."""
    found = re.search(r"\(os error (\d+)\)|\bOs \{\s*code: (\d+)", str(error))
    number = int(found[1] or found[2]) if found else getattr(error, "errno", None)
    kind, sentence = OF_SYSTEM.get(number or 0, (None, ""))
    if kind is None:
        return None
    sort = NotFoundError if kind in (ErrorKind.NO_FOLDER, ErrorKind.NO_OBJECT) else StorageError
    return sort(f"{where}: {sentence} ({os.strerror(number or 0)})", kind=kind)


def innermost(text: str) -> str:
    """Return the last cause of a chain, in words."""
    if "\u21b3" in text:  # a tree of causes, as delta-rs draws it
        cause = " ".join(_ANSI.sub("", text).rpartition("\u21b3")[2].split())
        certificate = "invalid peer certificate: " if "invalid peer certificate" in text else ""
        return _in_words(certificate + cause)
    told, _, chain = text.partition("Debug source:")
    if wrong := re.search(r"InvalidCertificate\(\s*(\w+)", chain):
        return _in_words(f"invalid peer certificate: {wrong[1]}")
    if "InvalidContentType" in chain:
        return _in_words("received corrupt message of type InvalidContentType")
    if re.search(r"kind: Timeout|TimedOut|Elapsed", chain):
        return _in_words("operation timed out")
    if "IncompleteBody" in chain or "UnexpectedEof" in chain:
        return "the answer was cut off"
    if "TooManyRedirects" in chain:
        return "its redirects lead in a circle"
    chain = re.sub(
        r'\bstore: "[^"]*"', "", chain
    )  # the client's name for the sort of store, which is no cause
    words = re.findall(r'"((?:[^"\\]|\\.)+)"', chain)
    return _line(words[-1] if words else told)


def _in_words(cause: str) -> str:
    """Return a cause in the words of a person who runs a server."""
    if (of := "invalid peer certificate: ") in cause:
        why = cause.partition(of)[2]
        known = next((words for name, words in CERTIFICATES.items() if name in why), "")
        return f"the server's certificate is not trusted ({why}){known}"
    if "received corrupt message" in cause:
        return "what answers there does not speak TLS; is it http:// instead of https://?"
    return "no answer in time" if "timed out" in cause else _line(cause)


def _answer(told: str) -> tuple[int | None, str, str]:
    """Return the status, code and message of a store's answer; none of them where nothing came."""
    status = re.search(r"status code[:\s\u21b3]*(\d{3})", _ANSI.sub("", told))
    code = re.search(r"<Code>\s*([^<]*?)\s*</Code>", told) or re.search(r'"?[cC]ode"?: "?([A-Z]\w+)', told)
    message = re.search(r"<Message>\s*([^<]*?)\s*</Message>", told)
    return int(status[1]) if status else None, code[1] if code else "", message[1] if message else ""


def _of_code(where: str, status: int, code: str, message: str, told: str) -> StorageError:
    """Translate a refusal with a status; ``code`` is S3's own, empty where the answer had no body."""
    said = f"{code}: {_line(message)}" if message else code or f"status {status}"
    if status == 416:
        return StorageError(f"{where} ends before the range asked for", kind=ErrorKind.SHORT_READ)
    if status in (429, 503) or code in BUSY_CODES:
        return StorageError(
            f"{where} cannot be reached: it is busy, status {status}, {said}", kind=ErrorKind.THROTTLED
        )
    if code in EXPIRED or any(text in message for text in EXPIRED):
        return StorageError(
            f"access to {where} was refused ({said}); the credentials have expired, renew them",
            kind=ErrorKind.DENIED,
        )
    if code == "RequestTimeTooSkewed":
        return StorageError(
            f"access to {where} was refused ({said}): the clock of this machine differs from the store's; set it right",
            kind=ErrorKind.CLOCK,
        )
    if code.startswith("KMS."):
        return StorageError(
            f"{where} is encrypted by a key that cannot be used ({said}); ask who manages that key",
            kind=ErrorKind.KMS,
        )
    if code == "InvalidObjectState":
        return StorageError(
            f"{where} is archived ({said}); restore it to a storage class that is read at once",
            kind=ErrorKind.ARCHIVED,
        )
    if status in (301, 307) and where.startswith(("http://", "https://")):
        return StorageError(
            f"{where} redirects to another address, and redirects are not followed ({said}); give the address that it leads to",
            kind=ErrorKind.REDIRECT,
        )
    if code in REGION_CODES or status in (301, 307):
        right = re.search(r"<Region>([^<]+)</Region>", told) or re.search(r"expecting '([a-z0-9-]+)'", told)
        endpoint = re.search(r"<Endpoint>([^<]+)</Endpoint>", told)
        hint = f"; it is in {right[1]}" if right else f"; it is at {endpoint[1]}" if endpoint else ""
        return StorageError(
            f"{where} is in another region, or at another endpoint ({said}){hint}: give region= or set AWS_REGION",
            kind=ErrorKind.WRONG_REGION,
        )
    if status in (401, 403):
        return StorageError(
            f"access to {where} was refused ({said}); check the credentials",
            kind=ErrorKind.DENIED,
        )
    if status >= 500 or status == 408 or code in ("RequestTimeout", "InternalError"):
        return StorageError(f"{where} cannot be reached: {said}", kind=ErrorKind.UNREACHABLE)
    return StorageError(f"{where}: the store refuses the request ({said})", kind=ErrorKind.REFUSED)


def _of_silence(text: str, where: str, endpoint: str | None) -> StorageError:
    """Translate a failure in which no answer came, or none that a store gives."""
    told = text.split("Debug source:", 1)[0]
    server = re.search(r"Error performing [A-Z]+ (https?://[^/\s]+)", told)
    asked = server[1] if server else endpoint
    at = f" at {asked}" if asked and asked not in where else ""
    if "credential provider" in told:
        cause = _line(told.split("provider: ", 1)[-1])
        return StorageError(
            f"no credentials for {where}: the callable that gives them failed, {cause}",
            kind=ErrorKind.NO_CREDENTIALS,
        )
    if (
        any(host in text for host in ("169.254.169.254", "169.254.170.", "fd00:ec2"))
        or "credential" in _line(told).lower()
    ):
        return StorageError(
            f"{where}: no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or pass access_key=",
            kind=ErrorKind.NO_CREDENTIALS,
        )
    if "region" in _line(told).lower() and "missing" in _line(told).lower():
        return StorageError(
            f"{where}: no region is configured; set AWS_REGION or give region=", kind=ErrorKind.NO_REGION
        )
    if "range was invalid" in told or "Requested range" in told:
        return StorageError(f"{where} ends before the range asked for", kind=ErrorKind.SHORT_READ)
    if "non-partial response" in told or "Range request not supported" in told:
        return StorageError(
            f"{where}: the server sends whole files instead of the ranges asked for; is this the address of a store?",
            kind=ErrorKind.NO_RANGES,
        )
    if "Unable to extract metadata" in told or "invalid list response" in told:
        return StorageError(
            f"what answers for {where}{at} is not an object store ({innermost(told)}); check the address and the endpoint",
            kind=ErrorKind.NOT_A_STORE,
        )
    if any(
        what in told for what in ("Operation not supported", "not yet implemented", "UnknownConfigurationKey")
    ):
        return StorageError(
            f"{where}{at}: the store cannot do that ({innermost(told)})", kind=ErrorKind.REFUSED
        )
    cause = innermost(text)
    kind = ErrorKind.TLS if "certificate" in cause or "TLS" in cause else ErrorKind.UNREACHABLE
    return StorageError(f"{where}{at} cannot be reached: {cause}", kind=kind)


def _line(text: str) -> str:
    """Return the first line of a text, not too long."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason is given")[:300]
