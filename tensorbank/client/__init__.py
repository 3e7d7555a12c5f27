"""Bytes through a service: HTTP connections, questions in JSON, signed URLs, and the bytes of a plan made there."""
