"""A loader's statistics, as a value, as a line of progress, and for Prometheus and OpenTelemetry."""
