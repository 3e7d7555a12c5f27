"""One turn of planning: what a rank is told when the store is gone, and what is kept for ranks that gave up waiting."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed

from tensorbank import TensorBankError
from tensorbank_loader.sharing import turn as turns
from tensorbank_loader.sharing.turn import Turn

LIMIT = timedelta(seconds=2)


def held_store() -> tuple[torch.distributed.TCPStore, torch.distributed.TCPStore]:
    """Return a store as rank 0 holds it, and as another rank reaches it."""
    own = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=LIMIT)
    return own, torch.distributed.TCPStore("127.0.0.1", own.port, is_master=False, timeout=LIMIT)


def test_a_rank_is_told_that_the_store_is_gone_wherever_it_stands(tmp_path: Path):
    own, other = held_store()
    turn = Turn(other, "a question", 1, 2)
    del own
    asks = (turn.heard, lambda: turn.fetch(10, tmp_path / "plan"), lambda: Turn(other, "another", 1, 2))
    for ask in asks:
        with pytest.raises(TensorBankError, match="the store of the process group is gone") as caught:
            ask()
        assert caught.value.kind == "world"
    assert turn.is_over


def test_nothing_is_kept_for_a_rank_that_waits_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own, other = held_store()
    monkeypatch.setattr(turns, "BEGIN_S", 0.0)
    assert Turn(other, "a question", 1, 2).heard() is None
    (tmp_path / "plan").write_bytes(b"plan")
    late = Turn(own, "a question", 0, 2)
    n_keys = own.num_keys()
    n_bytes = late.offer("a name", tmp_path / "plan", as_pieces=True)
    assert own.num_keys() == n_keys + 2, "what is said, and one piece"
    assert not late.is_over
    late.finish(n_bytes)
    assert late.is_over
    assert own.num_keys() == n_keys + 2, "what is said, and that it is over"
