"""The holder of leases: a thread that writes them anew while somebody reads, and removes them at the end.

A lease lasts :data:`LIFETIME_S` and is written anew each :data:`RENEW_S`: two renewals in a row may fail before it is over.
Nothing that goes wrong here reaches the reader, who may well have credentials that cannot write: one warning is logged, then
there is silence.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tensorbank.errors import ErrorKind, TensorBankError
from tensorbank.retention.leases import LIFETIME_S, Lease, lease_key
from tensorbank.retention.owners import this_process
from tensorbank.storage import Store

__all__ = ["LEASES_VARIABLE", "RENEW_S", "LeaseHolder", "Reading", "are_off"]

RENEW_S = 300.0
STOP_S = 1.0
"""The most seconds that the end of a reader waits for its lease to be removed; it expires anyway."""
LEASES_VARIABLE = "TENSORBANK_LEASES"
_OFF = ("0", "off", "false", "no")
_FOR_GOOD = (
    ErrorKind.DENIED,
    ErrorKind.REFUSED,
    ErrorKind.READ_ONLY,
    ErrorKind.NO_FOLDER,
    ErrorKind.NO_BUCKET,
    ErrorKind.FORKED,
)
"""The kinds of errors after which a bank is not tried again."""
_LOG = logging.getLogger(__name__)
_told: set[str] = set()


def are_off(surroundings: Mapping[str, str] | None = None) -> bool:
    """Tell whether the environment says that no leases are to be taken: ``TENSORBANK_LEASES=off``."""
    found = os.environ if surroundings is None else surroundings
    return found.get(LEASES_VARIABLE, "").strip().lower() in _OFF


@dataclass(frozen=True, slots=True)
class Reading:
    """A snapshot that somebody reads."""

    table: str
    table_id: str
    version: int


class LeaseHolder:
    """A holder of leases on snapshots of one bank, one lease a table. May be used from many threads.

    Parameters
    ----------
    store
        The bank.
    lease_id
        Id of the leases: who is started again under the same id replaces its own. None: a new one.
    lifetime_s, renew_s
        Seconds that a lease lasts, and after which it is written anew.
    idle_s
        Seconds after which a snapshot that nobody named again is let go; None to keep it to the end.
    now
        Clock for what is written, in UTC.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease_id: str | None = None,
        lifetime_s: float = LIFETIME_S,
        renew_s: float = RENEW_S,
        idle_s: float | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.store = store
        self.lease_id = lease_id or uuid.uuid4().hex
        self.lifetime_s = lifetime_s
        self.renew_s = renew_s
        self.idle_s = idle_s
        self._now = now or _utc
        self._since = self._now()
        self._named: dict[Reading, float] = {}
        self._written: dict[str, frozenset[Reading]] = {}
        self._lock = threading.RLock()  # the garbage collector may call stop() while the thread holds it
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def hold(self, readings: Iterable[Reading]) -> None:
        """Protect some snapshots from now on. Returns at once: the thread writes, and is started by the first call.

        In a process that was forked off nothing happens.
        """
        if self._pid != os.getpid():  # before the lock, which the thread may have held
            return
        with self._lock:
            if self._stopped:
                return
            new = False
            for reading in readings:
                new |= reading not in self._named
                self._named[reading] = time.monotonic()
            if not new:
                return
            if self._thread is not None:
                self._wake.set()
                return
            thread = threading.Thread(target=self._run, name="tensorbank-lease", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no more threads
                self._tell(error)
                return
            self._thread = thread

    def stop(self, limit_s: float = STOP_S) -> None:
        """Remove the leases and end the thread, within some seconds. In a process that was forked off nothing happens."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._stopped = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(limit_s)

    def renew(self) -> None:
        """Write the leases of what is held, and remove those of tables of which nothing is. The thread calls this.

        Raises
        ------
        TensorBankError
            The store does not let us.
        """
        with self._lock:
            if self.idle_s is not None:
                limit = time.monotonic() - self.idle_s
                self._named = {r: at for r, at in self._named.items() if at >= limit}
            held: dict[str, set[Reading]] = {}
            for reading in self._named:
                held.setdefault(reading.table, set()).add(reading)
        now = self._now()
        for table, readings in held.items():
            newest_id = max(readings, key=lambda r: r.version).table_id
            lease = Lease(
                self.lease_id,
                newest_id,
                tuple(sorted({r.version for r in readings})),
                self._since,
                now + timedelta(seconds=self.lifetime_s),
                this_process(),
            )
            self.store.put(lease_key(table, self.lease_id), lease.to_bytes())
            self._written[table] = frozenset(readings)
        for table in self._written.keys() - held.keys():
            self.store.delete(lease_key(table, self.lease_id))
            del self._written[table]

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._wake.clear()
                try:
                    self.renew()
                except TensorBankError as error:
                    self._tell(error)
                    if error.kind in _FOR_GOOD:
                        return
                if not self._stopped:
                    self._wake.wait(self.renew_s)
            for table in list(self._written):
                self.store.delete(lease_key(table, self.lease_id))
        except Exception as error:  # noqa: BLE001 - the edge of a thread: a lease is never worth a run
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        """Log the first failure of each bank."""
        if self.store.url in _told:
            return
        _told.add(self.store.url)
        _LOG.warning(
            "%s: no lease can be written, so maintenance does not know that these snapshots are read (%s); tag them, or silence "
            "this with lease=False or %s=off",
            self.store.url,
            str(error).splitlines()[0] if str(error) else type(error).__name__,
            LEASES_VARIABLE,
        )


def _utc() -> datetime:
    return datetime.now(UTC)
