"""The section on codecs: what profiles and chains take and cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pages.markdown import table

__all__ = ["codecs"]

Costs = Mapping[str, Mapping[str, float]]
CHAINS_OF = ("S2L2A", "S2L2A, SSL4EO-S12", "S1RTC", "DEM", "LULC")
"""The groups of which all chains are shown; the others are in the results."""
CHEAP_NETWORKS = (10, 25, 100, 400)


def codecs(found: Mapping[str, Any]) -> str:
    """Return the tables of ``bench_codec.py``."""
    if not found:
        return ""
    today = found["today"]
    shown = [name for name in CHAINS_OF if name in found["groups"]]
    told = (
        f"Measured on {found['origin']}, best of {found['rounds']} rounds, numcodecs {found['machine']['numcodecs']}. *Bytes* "
        f"and *decodes* are beside the profile `{today}`, which was the default before there were figures."
    )
    parts = [
        told,
        _samples(found["samples"], today),
        f"By modality, of {found['rates_of']}: bytes / decodes / encodes beside `{today}`.",
        _by_modality(found["samples"][found["rates_of"]], today),
        f"Samples/s of {found['rates_of']} that cores and a network allow, the lesser of what is read and what is decoded:",
        _rates(found["rates"]),
        *_pairs(found.get("pairs"), today),
        f"All chains on some of the groups of blocks: raw / stored, encode and decode in s/GB. {_sizes(found['groups'], shown)}",
        _chains({name: found["groups"][name]["chains"] for name in shown}),
        "Whether other readers of Zarr v3 open what is written so:",
        _readers(found["readers"]),
    ]
    return "\n\n".join(parts)


def _samples(kinds: Mapping[str, Mapping[str, Costs]], today: str) -> str:
    rows = [
        [
            kind if i == 0 else "",
            f"`{profile}`",
            f"{1 / parts['']['stored']:.2f}",
            f"{parts['']['encode_s_per_gb']:.2f}",
            f"{parts['']['decode_s_per_gb']:.2f}",
            f"{parts['']['stored'] / of[today]['']['stored']:.3f} x",
            f"{of[today]['']['decode_s_per_gb'] / parts['']['decode_s_per_gb']:.2f} x",
        ]
        for kind, of in kinds.items()
        for i, (profile, parts) in enumerate(of.items())
    ]
    head = ["sample", "profile", "raw / stored", "encode, s/GB", "decode, s/GB", "bytes", "decodes"]
    return table(head, rows)


def _by_modality(of: Mapping[str, Costs], today: str) -> str:
    others = [profile for profile in of if profile not in (today, "raw")]
    rows = []
    for name in (n for n in of[today] if n):
        before = of[today][name]
        cells = [
            f"{now['stored'] / before['stored']:.2f} / {before['decode_s_per_gb'] / now['decode_s_per_gb']:.1f} / "
            f"{before['encode_s_per_gb'] / now['encode_s_per_gb']:.2g} x"
            for now in (of[profile][name] for profile in others)
        ]
        rows.append([name, f"{1 / before['stored']:.2f}", *cells])
    return table(["modality", f"raw / stored of `{today}`", *(f"`{p}`" for p in others)], rows)


def _rates(rates: list[Mapping[str, float]]) -> str:
    profiles = [name for name in rates[0] if name not in ("cores", "network_gbps")]
    rows = [
        [f"{r['cores']}", f"{r['network_gbps']} Gbit/s", *(f"{r[p]:,.0f}" for p in profiles)]
        for r in rates
        if r["network_gbps"] in CHEAP_NETWORKS
    ]
    return table(["cores", "network", *(f"`{p}`" for p in profiles)], rows)


def _pairs(pairs: Mapping[str, Any] | None, today: str) -> list[str]:
    if pairs is None:
        return []
    before = pairs["profiles"][today]
    rows = [
        [
            f"`{profile}`",
            f"{of['stored_mb']:.1f}",
            f"{of['ingest_s_per_gb']:.2f}",
            f"{of['ingest_s_per_gb'] / before['ingest_s_per_gb']:.2f} x",
            f"{of['stream_s_per_gb']:.2f}",
            f"{of['stream_s_per_gb'] / before['stream_s_per_gb']:.2f} x",
        ]
        for profile, of in pairs["profiles"].items()
    ]
    head = ["profile", "stored, MB", "ingest, CPU s/GB", "", "stream, CPU s/GB", ""]
    told = (
        f"The whole way, {pairs['samples']} made-up samples ingested in one process and streamed, by turns: CPU seconds of the "
        "process a GB of tensors, with all that it does beside coding."
    )
    return [told, table(head, rows)]


def _sizes(groups: Mapping[str, Mapping[str, Any]], shown: list[str]) -> str:
    counts = [f"{name}: {groups[name]['blocks']} of {groups[name]['shape'][0]} px" for name in shown]
    return f"Blocks: {'; '.join(counts)}."


def _chains(groups: Mapping[str, Costs]) -> str:
    names = list(dict.fromkeys(chain for chains in groups.values() for chain in chains))

    def cell(cost: Mapping[str, float] | None) -> str:
        if cost is None:
            return "-"
        return f"{1 / cost['stored']:.2f}, {cost['encode_s_per_gb']:.2g}, {cost['decode_s_per_gb']:.2f}"

    rows = [[name, *(cell(chains.get(name)) for chains in groups.values())] for name in names]
    return table(["chain", *groups], rows)


def _readers(readers: Mapping[str, Mapping[str, str]]) -> str:
    columns = list(next(iter(readers.values())))
    return table(["", *columns], [[name, *(of[c] for c in columns)] for name, of in readers.items()])
