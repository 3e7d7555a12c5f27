"""Traces of requests by OpenTelemetry: one span of kind server a request, sent to a collector.

Which collector, what the service is called there and which share of the requests is traced, is told by the variables that
OpenTelemetry defines: ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tensorbank.errors import InvalidInputError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

__all__ = ["Traces"]

CLOSE_S = 3.0
"""Seconds that the last spans have to reach the collector; one that is away holds up no end of a service."""


class Traces:
    """The traces of one service. The constructor assigns; :meth:`open` reads the environment and starts a thread that sends.

    Parameters
    ----------
    exporter
        Takes the spans; None for one that sends OTLP by HTTP.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._exporter = exporter
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None

    def open(self) -> None:
        """Begin to send.

        Raises
        ------
        InvalidInputError
            The packages of OpenTelemetry are not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise InvalidInputError(
                f"traces need {error.name}: pip install 'tensorbank[otel]', or set traces = false"
            ) from error
        own = Resource({SERVICE_NAME: "tensorbank"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=own, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tensorbank_server")

    def begin(self, method: str, traceparent: str | None) -> Span | None:
        """Begin the span of a request, below the caller's if it named one; None if there are no traces."""
        if self._tracer is None:
            return None
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        above = TraceContextTextMapPropagator().extract({"traceparent": traceparent or ""})
        return self._tracer.start_span(
            method, above, kind=SpanKind.SERVER, attributes={"http.request.method": method}
        )

    @staticmethod
    def end(span: Span, method: str, route: str, status: int, code: str | None, request_id: str) -> None:
        """End the span of a request; a status from 500 on, or none, is an error. No caller and no query is told."""
        from opentelemetry.trace import StatusCode

        span.update_name(f"{method} {route}")
        span.set_attributes({"http.route": route, "tensorbank.request_id": request_id})
        if status:
            span.set_attribute("http.response.status_code", status)
        if code is not None:
            span.set_attribute("error.type", code)
        if status >= 500 or not status:
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Send what is left, for a short time; a collector that hangs longer is left behind."""
        if self._provider is not None:
            closing = threading.Thread(target=self._provider.shutdown, daemon=True)
            closing.start()
            closing.join(CLOSE_S)
            self._provider = self._tracer = None
