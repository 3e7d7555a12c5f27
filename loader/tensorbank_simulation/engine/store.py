"""A store that answers requests: after a latency, at a bandwidth, and not more often than it likes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tensorbank_simulation.engine.clock import Action, Clock
from tensorbank_simulation.engine.draws import draw
from tensorbank_simulation.engine.shared import Wire
from tensorbank_simulation.latency import Latency

__all__ = ["Requests", "StoreSetting"]

LATENCY, REFUSAL = 1, 2
"""The names of draws."""


@dataclass(frozen=True, slots=True)
class StoreSetting:
    """A store as some nodes see it.

    Parameters
    ----------
    latency
        Time to the first byte.
    requests_per_s
        Requests that are answered, a second, all nodes together; the others are refused (503). A second's worth may come at once.
    refused_share
        Share of requests that is refused whatever their rate.
    """

    latency: Latency
    requests_per_s: float = math.inf
    refused_share: float = 0.0


class Requests:
    """The requests of some nodes to one store.

    Parameters
    ----------
    seed
        Seed of all draws.
    """

    def __init__(self, clock: Clock, setting: StoreSetting, seed: int) -> None:
        self._clock = clock
        self._setting = setting
        self._seed = seed
        self._tokens = setting.requests_per_s
        self._filled_s = 0.0
        self.n_asked = 0
        self.n_refused = 0

    def ask(
        self,
        key: tuple[int, int, int],
        n_bytes: float,
        network: Wire,
        answered: Action,
        refused: Action,
    ) -> None:
        """Make a request; one of the two actions is done in the end.

        Parameters
        ----------
        key
            Numbers of the rank, of the read, and of the try, which decide what is drawn.
        network
            Network of the node that asks.
        """
        self.n_asked += 1
        latency_s = self._setting.latency.quantile_s(draw(self._seed, LATENCY, *key))
        if self._is_refused(key):
            self.n_refused += 1
            self._clock.after(latency_s, refused)
            return
        self._clock.after(latency_s, lambda: network.add(n_bytes, answered))

    def _is_refused(self, key: tuple[int, int, int]) -> bool:
        setting = self._setting
        if setting.refused_share and draw(self._seed, REFUSAL, *key) < setting.refused_share:
            return True
        if setting.requests_per_s == math.inf:
            return False
        now_s = self._clock.now_s
        more = (now_s - self._filled_s) * setting.requests_per_s
        self._tokens = min(self._tokens + more, max(setting.requests_per_s, 1.0))
        self._filled_s = now_s
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False
