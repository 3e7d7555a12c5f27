"""The limits of what a caller may ask of a service: sizes, counts, times, and rates."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

__all__ = ["Limits"]

STORE_SCHEMES = ("redis://", "rediss://", "unix://")


class Limits(BaseModel):
    """The limits of what a caller may ask for. All but the address of the store are shown in ``/v1/config``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(default=64 << 10, gt=0)
    body_depth: int = Field(default=64, gt=0, description="Nesting of JSON in bodies.")
    body_s: float = Field(
        default=10.0, gt=0, description="Time for the body of a request, behind its headers."
    )
    header_s: float = Field(
        default=10.0, gt=0, description="Time for the headers of a request, from its first byte."
    )
    path_bytes: int = Field(default=2 << 10, gt=0, description="Path of a request, as it is sent.")
    query_bytes: int = Field(default=32 << 10, gt=0, description="Query of a request, as it is sent.")
    header_bytes: int = Field(default=32 << 10, gt=0, description="Names and values of all headers.")
    query_parameters: int = Field(default=64, gt=0)
    filter_bytes: int = Field(default=8 << 10, gt=0)
    filter_depth: int = Field(default=32, gt=0)
    filter_nodes: int = Field(default=512, gt=0)
    filter_list_items: int = Field(default=1_000, gt=0)
    filter_vertices: int = Field(default=1_000, gt=0)
    page_rows: int = Field(default=100, gt=0, description="Rows a page, at most; HF's viewer has 100 too.")
    page_items: int = Field(default=1_000, gt=0, description="STAC items a page, at most.")
    page_tasks: int = Field(default=10_000, gt=0, description="Tasks of a plan a page of NDJSON, at most.")
    page_arrow_tasks: int = Field(
        default=1_000_000, gt=0, description="Tasks of a plan a page of Arrow, at most."
    )
    reference_chunks: int = Field(default=100_000, gt=0, description="Chunks of a reference file, at most.")
    page_shards: int = Field(default=10_000, gt=0, description="Addresses of shards a page, at most.")
    answer_bytes: int = Field(
        default=16 << 20, gt=0, description="Rows, items and density, encoded, at most."
    )
    tensor_bytes: int = Field(default=64 << 20, gt=0, description="Decoded tensors of one answer, at most.")
    plan_samples: int = Field(default=50_000_000, gt=0)
    sql_rows: int = Field(default=10_000, gt=0)
    sql_memory_bytes: int = Field(
        default=2 << 30, gt=0, description="Address space of a process that answers SQL."
    )
    sql_processes: int = Field(default=2, gt=0, description="Processes that answer SQL, at most.")
    proxy_range_bytes: int = Field(default=64 << 20, gt=0)
    token_bytes: int = Field(default=2 << 10, gt=0)
    request_s: float = Field(
        default=30.0,
        gt=0,
        description="Time from the first byte of a request to the first byte of its answer.",
    )
    send_stall_s: float = Field(
        default=30.0,
        gt=0,
        description="Time for a client to take 256 KiB of an answer; a slower one is dropped.",
    )
    query_s: float = Field(
        default=10.0, gt=0, description="Time for one query in a worker, which is killed a second later."
    )
    bank_s: float = Field(
        default=10.0,
        gt=0,
        description="Time for one read or look-up in a bank, its wait for a thread included.",
    )
    bank_waiting: int = Field(
        default=64, ge=0, description="Reads and look-ups that wait for a thread of one bank."
    )
    plan_s: float = Field(default=60.0, gt=0, description="Time for making a plan.")
    sync_s: float = Field(default=2.0, gt=0, description="Time that POST plans waits before it answers 202.")
    max_concurrent: int = Field(default=64, gt=0, description="Requests that are worked on at once.")
    max_concurrent_per_key: int = Field(default=32, gt=0)
    max_open: int = Field(
        default=2_048,
        gt=0,
        description="Requests under way, those whose client sends or reads slowly among them.",
    )
    max_open_per_key: int = Field(default=512, gt=0)
    max_open_per_address: int = Field(default=512, gt=0)
    requests_per_minute: int = Field(
        default=30_000, gt=0, description="Per key, or address where there are no keys."
    )
    failures_per_minute: int = Field(
        default=60, gt=0, description="Requests without a good key, per address."
    )
    queries_per_minute: int = Field(
        default=600, gt=0, description="Plans, searches, filters and SQL among them."
    )
    store: SecretStr | None = Field(
        default=None,
        exclude=True,
        description="Redis in which all replicas count rates: redis://host:6379/0, rediss:// or unix://.",
    )
    store_password_file: Path | None = Field(default=None, exclude=True)
    store_s: float = Field(
        default=0.5,
        gt=0,
        description="Time that a request waits for the store before its replica counts alone.",
    )
    n_replicas: int = Field(
        default=1,
        gt=0,
        description="The most replicas; while the store is away each allows its share of a rate.",
    )

    @field_validator("store")
    @classmethod
    def _is_of_redis(cls, store: SecretStr | None) -> SecretStr | None:
        if store is not None and not store.get_secret_value().startswith(STORE_SCHEMES):
            raise ValueError(f"the store of the limits is a URL that begins with {', '.join(STORE_SCHEMES)}")
        return store
