"""A client of a service: questions in JSON, answers in JSON or as errors of TensorBank's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from tensorbank.client.http import Answer, HttpPool
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, StorageError, TensorBankError
from tensorbank.storage import MAX_PAUSE_S, PASSING, RetryPolicy, parse_retry_after, retrying

__all__ = ["BANKS", "ONCE", "POLICY", "ServiceClient", "failure"]

BANKS = "/v1/banks/"
POLICY = RetryPolicy(first_pause_s=0.25, max_pause_s=MAX_PAUSE_S, deadline_s=30.0, n_tries=6)
"""The retry policy of questions whose answer somebody waits for."""
ONCE = RetryPolicy(first_pause_s=0.25, max_pause_s=MAX_PAUSE_S, deadline_s=0.0)
"""The retry policy of questions within a read, which is repeated as a whole:
retries within retries would multiply."""
NOT_READY = "not-ready"
"""The code of an answer about a plan that is being made, as after the service was started again: it will be there soon."""
USER_AGENT = "tensorbank"


class ServiceClient:
    """A client that asks one service. May be used from many threads; it pickles without its connections.

    Every question may be asked twice: the service answers the same ones alike.

    Parameters
    ----------
    url
        URL of the service, without a path of its own.
    key
        None where access is open.
    policy
        Policy by which a service that is busy or out of reach is asked again.
    """

    def __init__(self, url: str, key: str | None = None, policy: RetryPolicy = POLICY) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self.policy = policy
        self.pool = HttpPool()

    def __repr__(self) -> str:
        return f"ServiceClient({self.url!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.url, self.key, self.policy))

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request to the service, and to nobody else: they hold the key."""
        found = {"User-Agent": USER_AGENT}
        return found | {"Authorization": f"Bearer {self.key}"} if self.key else found

    def get(self, path: str, **query: str | int | None) -> Any:
        """Return the JSON at a path.

        Raises
        ------
        TensorBankError
            What the service refused, by what to do next; StorageError where it cannot be reached.
        """
        return _as_json(self.url, self._ask("GET", path, query))

    def post(self, path: str, content: Mapping[str, Any]) -> Any:
        """Post JSON to a path and return the JSON of the answer."""
        return _as_json(self.url, self._ask("POST", path, {}, json.dumps(content).encode()))

    def ask(self, path: str, content: Mapping[str, Any], accept: str) -> Answer:
        """Post JSON to a path and return the answer, in the form that ``accept`` names."""
        return self._ask("POST", path, {}, json.dumps(content).encode(), accept)

    def read(self, path: str, accept: str, **query: str | int | None) -> memoryview:
        """Return the body at a path, in the form that ``accept`` names."""
        return self._ask("GET", path, query, accept=accept).body

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int | None],
        body: bytes | None = None,
        accept: str = "application/json",
    ) -> Answer:
        given = {name: value for name, value in query.items() if value is not None}
        url = f"{self.url}{path}" + (f"?{urlencode(given)}" if given else "")
        headers = {**self.headers, "Accept": accept}
        if body is not None:
            headers["Content-Type"] = "application/json"

        def ask_once() -> Answer:
            answer = self.pool.ask(method, url, headers, body)
            if answer.status < 300:
                return answer
            raise failure(self.url, answer)

        return retrying(dict.fromkeys(PASSING, self.policy), ask_once)


def failure(service: str, answer: Answer) -> TensorBankError:
    """Translate a service's refusal into an error."""
    try:
        problem = json.loads(answer.text)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = "http", f"status {answer.status} without a word of TensorBank's"
        if answer.status < 500 and answer.status != 429:
            return StorageError(
                f"{service} answers with {detail}; is it a service?", kind=ErrorKind.NO_SERVICE
            )
    text = f"{service}: {detail}"
    if answer.status in (401, 403):
        return StorageError(f"{service} refused access: {detail}", kind=ErrorKind.DENIED)
    if answer.status in (429, 503) or code == NOT_READY:
        busy = StorageError(text, kind=ErrorKind.THROTTLED)
        busy.retry_after_s = parse_retry_after(answer.headers.get("Retry-After"), datetime.now(UTC))
        return busy
    if answer.status in (404, 410):
        return NotFoundError(text, kind=ErrorKind.named(code, ErrorKind.NOT_FOUND))
    if answer.status == 504 and code != "http":  # a gateway's own 504 says that the service is away
        return StorageError(text, kind=ErrorKind.TIME_LIMIT)
    if answer.status >= 500:
        return StorageError(text, kind=ErrorKind.UNREACHABLE)
    return InvalidInputError(text, kind=ErrorKind.named(code, ErrorKind.INVALID_INPUT))


def _as_json(service: str, answer: Answer) -> Any:
    try:
        return json.loads(bytes(answer.body))
    except ValueError as error:
        raise StorageError(
            f"{service} did not send JSON, so it is not a TensorBank service; check its address",
            kind=ErrorKind.NO_SERVICE,
        ) from error
