"""One turn of planning: what rank 0 says to the others in the store of their process group, and the plan's bytes in pieces.

Nothing here is a collective: a rank that comes late finds what was said, and one that never comes holds nobody up. While rank 0
plans it gives a sign of life every few seconds, so that the others can tell long planning from a process that is gone.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from tensorbank.errors import ErrorKind, TensorBankError

__all__ = ["Turn"]

BEGIN_S = 60.0
"""The most seconds that a rank waits for rank 0 to begin."""
BEAT_S = 2.0
GONE_S = 60.0
"""The seconds without a sign of life after which rank 0 is taken for gone."""
FIRST_POLL_S, MAX_POLL_S = 0.005, 0.25
PIECE_BYTES = 4 << 20
"""The bytes of a piece before compression; the store of torch takes 8 MiB."""
_CODEC = "zstd"


class Turn:
    """The turn in which the ranks of a group share the plan of one question.

    Parameters
    ----------
    store
        Store of the process group.
    question
        What is planned. Ranks that ask the same, as often, meet in one turn.

    Raises
    ------
    TensorBankError
        The store is gone; its kind is ``world``.
    """

    def __init__(self, store: Any, question: str, rank: int, n_ranks: int) -> None:
        self._store = store
        self._n_ranks = n_ranks
        topic = f"tensorbank/plan/{hashlib.sha256(question.encode()).hexdigest()[:32]}"
        with _told_if_gone():  # the count is kept where the group is: of another group it starts anew
            number = store.add(f"{topic}/{rank}", 1)
        self._topic = f"{topic}/turn{number}"

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Say that rank 0 has begun, and that it is alive while the block runs; of an error in it, tell the others."""
        self._set("begun", "")
        done = threading.Event()
        beats = threading.Thread(target=self._beat, args=(done,), name="tensorbank-planning", daemon=True)
        beats.start()
        try:
            yield
        except BaseException as error:
            with suppress(RuntimeError):
                self._say(error=_described(error))
            raise
        finally:
            done.set()
            beats.join()

    def _beat(self, done: threading.Event) -> None:
        number = 0
        with suppress(RuntimeError):  # the store is gone, and with it who would listen
            while not done.wait(BEAT_S):
                number += 1
                self._set("beat", str(number))

    def offer(self, name: str, path: Path | None, *, as_pieces: bool) -> int:
        """Say what a plan is called, and return the bytes that are there in pieces. With no path each must plan for itself."""
        n_bytes = 0
        if path is not None and as_pieces:
            n_bytes = path.stat().st_size
            with path.open("rb") as file:
                for number, start in enumerate(range(0, n_bytes, PIECE_BYTES)):
                    piece = file.read(min(PIECE_BYTES, n_bytes - start))
                    self._set(f"piece{number}", pa.compress(piece, codec=_CODEC, asbytes=True))
        self._say(name=None if path is None else name, n_bytes=n_bytes)
        return n_bytes

    def _say(self, **said: Any) -> None:
        self._set("said", json.dumps(said))

    def heard(self) -> Mapping[str, Any] | None:
        """Wait for what rank 0 says: ``name`` and ``n_bytes``. None if it has not begun for a minute.

        Raises
        ------
        TensorBankError
            The one that rank 0 met; or rank 0 is gone, and its kind is ``world``.
        """
        with _told_if_gone():
            if not self._wait("begun", lambda waited_s: waited_s < BEGIN_S):
                self.finish(0)  # should rank 0 still come, it need keep nothing for this one
                return None
            if not self._wait("said", self._is_alive()):
                raise _gone(f"rank 0 has given no sign of life for {GONE_S:g} s")
            said: dict[str, Any] = json.loads(self._store.get(f"{self._topic}/said"))
        if "error" in said:
            raise _raised(**said["error"])
        return said

    def _wait(self, name: str, goes_on: Callable[[float], bool]) -> bool:
        """Wait for something to be said, as long as a callable of the seconds that have passed allows."""
        started_s, poll_s = time.monotonic(), FIRST_POLL_S
        while not self._store.check([f"{self._topic}/{name}"]):
            if not goes_on(time.monotonic() - started_s):
                return False
            time.sleep(poll_s)
            poll_s = min(2 * poll_s, MAX_POLL_S)
        return True

    def _is_alive(self) -> Callable[[float], bool]:
        """Return a callable that tells, by the seconds that have passed, whether rank 0 still gives signs of life."""
        last, heard_s = b"", 0.0

        def goes_on(waited_s: float) -> bool:
            nonlocal last, heard_s
            beat = (
                self._store.get(f"{self._topic}/beat") if self._store.check([f"{self._topic}/beat"]) else b""
            )
            if beat != last:
                last, heard_s = beat, waited_s
            return waited_s - heard_s < GONE_S

        return goes_on

    def fetch(self, n_bytes: int, path: Path) -> bool:
        """Write a plan's pieces to a file, and tell whether there are any.

        Raises
        ------
        TensorBankError
            The store is gone, or does not have them any more; its kind is ``world``.
        """
        if not n_bytes:
            return False
        with path.open("wb") as file:
            for number, start in enumerate(range(0, n_bytes, PIECE_BYTES)):
                with _told_if_gone():
                    piece = self._store.get(f"{self._topic}/piece{number}")
                size = min(PIECE_BYTES, n_bytes - start)
                file.write(pa.decompress(piece, decompressed_size=size, codec=_CODEC, asbytes=True))
        return True

    def finish(self, n_bytes: int) -> None:
        """Say that this rank has what it needs. The last of all removes the pieces."""
        with suppress(RuntimeError):  # the store is gone, and the pieces with it
            if self._store.add(f"{self._topic}/had", 1) == self._n_ranks:
                self._set("over", "")
                for number in range(-(-n_bytes // PIECE_BYTES)):
                    self._store.delete_key(f"{self._topic}/piece{number}")

    @property
    def is_over(self) -> bool:
        """True if all ranks have what they need, or the group is gone."""
        try:
            return bool(self._store.check([f"{self._topic}/over"]))
        except RuntimeError:
            return True

    def _set(self, name: str, value: str | bytes) -> None:
        self._store.set(f"{self._topic}/{name}", value)


def _described(error: BaseException) -> dict[str, str]:
    if isinstance(error, TensorBankError):
        return {"name": type(error).__name__, "message": str(error), "kind": error.kind}
    text = f"{type(error).__name__}: {error}"
    return {"name": "TensorBankError", "message": f"planning failed by {text}", "kind": ErrorKind.WORLD}


def _raised(name: str, message: str, kind: str) -> TensorBankError:
    """Return an error that another rank has described."""
    classes = {cls.__name__: cls for cls in TensorBankError.__subclasses__()}
    cls = classes.get(name, TensorBankError)
    return cls(f"rank 0, which plans for all ranks: {message}", kind=ErrorKind(kind))


@contextmanager
def _told_if_gone() -> Iterator[None]:
    """Turn what torch raises in the block where its store does not answer into an error that says so."""
    try:
        yield
    except RuntimeError as error:  # torch's DistStoreError and DistNetworkError
        raise _gone(f"the store of the process group is gone ({str(error).partition(chr(10))[0]})") from error


def _gone(why: str) -> TensorBankError:
    return TensorBankError(
        f"no plan came from rank 0, which plans for all ranks: {why}; look at its log, and start the run again",
        kind=ErrorKind.WORLD,
    )
