"""The owners of tags and leases: on which machine, and in which program, somebody made them."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Owner", "this_process"]

MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that made something in a bank, for people who ask whose it is. Texts are empty where they are not known."""

    user: str
    host: str
    pid: int
    program: str

    def __str__(self) -> str:
        if not (self.user or self.host or self.pid):  # a service does not tell
            return "somebody"
        return f"{self.user or 'somebody'} on {self.host or 'some machine'}, process {self.pid}, {self.program or 'python'}"


def this_process() -> Owner:
    """Return the process that asks."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as in many containers
        user = ""
    program = Path(sys.argv[0] if sys.argv else "").name
    return Owner(
        user[:MAX_CHARACTERS], socket.gethostname()[:MAX_CHARACTERS], os.getpid(), program[:MAX_CHARACTERS]
    )
