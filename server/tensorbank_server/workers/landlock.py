"""Landlock: a process gives up, for itself and for good, rights that it will not need.

What is not granted here is refused by the kernel, whatever the code of the process is talked into.
https://docs.kernel.org/userspace-api/landlock.html
"""

# Three system calls by ctypes rather than a package: they are called in the process that answers SQL of callers, which should
# import nothing but what it needs.

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

__all__ = ["abi_version", "restrict"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ALL_OF_FILES = (1 << 13) - 1
"""The rights over files of ABI 1: execute, write, read, list, remove, make."""
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPES = 3
"""The flags of ABI 6, about abstract sockets and signals."""


def abi_version() -> int:
    """Return the version of Landlock that the kernel has; 0 if it has none."""
    return max(0, _syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG))


def restrict(readable: Iterable[str]) -> int:
    """Restrict this thread, and those that it starts, to reading some files and folders: no writes, no connections.

    Returns
    -------
    The ABI version; 0 where the kernel has no Landlock, and nothing was given up.

    Raises
    ------
    OSError
        The kernel has Landlock and refused.
    """
    abi = abi_version()
    if not abi:
        return 0
    handled = (
        _ALL_OF_FILES
        | (_REFER if abi >= 2 else 0)
        | (_TRUNCATE if abi >= 3 else 0)
        | (_IOCTL_DEV if abi >= 5 else 0)
    )
    attributes = struct.pack("=Q", handled)
    if abi >= 4:
        attributes += struct.pack("=Q", _BIND_TCP | _CONNECT_TCP)
    if abi >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = _checked(
        _syscall(
            _CREATE_RULESET, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0
        )
    )
    try:
        for path in readable:
            _grant(ruleset, path)
        libc = ctypes.CDLL(None, use_errno=True)
        _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(_syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return abi


def _grant(ruleset: int, path: str) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        folder = os.path.isdir(path)  # noqa: PTH112 - of what was opened by this name
        rights = _READ_FILE | _EXECUTE | (_READ_DIR if folder else 0)
        rule = struct.pack("=Qi", rights, opened)
        _checked(
            _syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)
        )
    finally:
        os.close(opened)


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
