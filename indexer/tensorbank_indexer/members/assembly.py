"""A sample out of its members, checked: they agree on id and place, and their times are in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank_indexer.cf import NO_TIME, Position, id_times, is_plausible, match_slots
from tensorbank_indexer.containers import Boundary, readable
from tensorbank_indexer.members.member import Member
from tensorbank_indexer.source import Finding, MemberAddress, RawModality, RawSample, SampleRef

__all__ = ["CLOUD_MASK", "CLOUD_MASK_ORDER", "Assembly", "is_radar"]

CLOUD_MASK = "cloud_mask"
CLOUD_MASK_ORDER = ("S2L2A", "S2L1C", "S2RGB")
"""The modalities whose cloud mask counts, in order: that of the first that has one."""
FOOTPRINT_TOLERANCE_M = 0.01
Times = npt.NDArray[np.int64]


def is_radar(modality: str) -> bool:
    """Tell whether a modality is Sentinel-1, whose dates some revisions have in the wrong order."""
    return modality.startswith("S1")


class Assembly:
    """A set of the members of one sample, which checks them against each other."""

    def __init__(self, ref: SampleRef) -> None:
        self.ref = ref
        self.members: dict[str, Member] = {}
        self.findings: list[Finding] = []

    @property
    def needs_cloud_mask(self) -> bool:
        """True if no member has delivered a cloud mask yet."""
        return all(member.cloud_mask is None for member in self.members.values())

    def find(self, kind: str, modality: str, reason: str, action: str) -> None:
        """Note a defect."""
        self.findings.append(
            Finding(kind, self.ref.archive, readable(reason), action, member=self.ref.stem, modality=modality)
        )

    def boundary(self, modality: str, action: str = "modality left out") -> Boundary:
        """Return a block around one member: what is raised inside becomes a finding."""
        return Boundary(lambda kind, reason: self.find(kind, modality, reason, action))

    def add(self, modality: str, member: Member) -> None:
        """Take a member and report its own problems."""
        self.members[modality] = member
        for kind, reason, action in member.problems:
            self.find(kind, modality, reason, action)

    def finish(
        self, *, cell_id: str | None = None, location_id: str | None = None, sample_id: str | None = None
    ) -> RawSample:
        """Check ids, footprints and times, and put the sample together.

        ``sample_id`` is the id that counts, that of ``agreed_id`` if not given. A sample that cannot be put together
        has no modalities, and a finding that says why.
        """
        with self.boundary("", "sample left out"):
            return self._checked(cell_id, location_id, sample_id)
        return RawSample(
            self.ref, self.ref.sample_id, None, None, None, None, None, {}, findings=self.findings
        )

    def _checked(self, cell_id: str | None, location_id: str | None, sample_id: str | None) -> RawSample:
        self._check_places()
        place = self._place()
        sample = RawSample(
            ref=self.ref,
            sample_id=sample_id or self.agreed_id(),
            epsg=place.epsg,
            lon=place.lon if place.lon is not None else _known(self.ref.lon),
            lat=place.lat if place.lat is not None else _known(self.ref.lat),
            x=place.x,
            y=place.y,
            modalities={},
            cell_id=cell_id,
            location_id=location_id,
            cloud_cover=_cloud_cover(self.ref.metadata),
            findings=self.findings,
        )
        for modality, member in self.members.items():
            if member.pixels is not None:
                pixels, times, ids = self._in_order(modality, member.pixels, member.position)
                sample.modalities[modality] = RawModality(
                    pixels, member.bands, times, ids, self.ref.members[modality]
                )
        self._add_cloud_mask(sample)
        return sample

    def agreed_id(self) -> str:
        """Return the id that most members have, that of the reference if none has any."""
        ids = Counter(m.position.sample_id for m in self.members.values() if m.position.sample_id)
        return ids.most_common(1)[0][0] if ids else self.ref.sample_id

    def _check_places(self) -> None:
        """Leave out members that differ in id and in place, since they show another sample; a difference in one of these
        is only reported.
        """
        agreed = self.agreed_id()
        place = self._place()
        holders = [
            name
            for name, m in self.members.items()
            if m.position.x is not None and not _distance(place, m.position)
        ]
        if self.ref.sample_id not in (agreed, self.ref.stem):
            reason = f"The metadata table calls the sample {self.ref.sample_id}, its members {agreed}."
            self.find("sample-id-mismatch", "", reason, f"read as {agreed}")
        for modality, member in self.members.items():
            moved = _distance(place, member.position)
            if moved:
                self.find(
                    "footprint-mismatch",
                    modality,
                    f"{moved} of {modality} differ from those of {', '.join(holders)}{_sizes(place, member)}.",
                    f"read all the same; x and y are those of {', '.join(holders)}",
                )
            if member.position.sample_id not in (None, agreed):
                reason = f"{modality} says that it is {member.position.sample_id}, the sample is {agreed}."
                self.find(
                    "sample-id-mismatch",
                    modality,
                    reason,
                    "left out" if moved else "read all the same, as its place is the same",
                )
                if moved:
                    member.pixels = member.cloud_mask = None

    def _place(self) -> Position:
        """Return the position that most members have; of equals that of a square, as all published samples are, or else the
        first.
        """
        groups: list[tuple[int, Position]] = []
        for member in self.members.values():
            if member.position.x is None and groups:
                continue
            for i, (count, position) in enumerate(groups):
                if not _distance(position, member.position):
                    groups[i] = (count + 1, position)
                    break
            else:
                groups.append((1, member.position))
        return max(groups, key=lambda group: (group[0], _is_square(group[1])))[1] if groups else Position()

    def _in_order(
        self, modality: str, pixels: npt.NDArray[Any], position: Position
    ) -> tuple[npt.NDArray[Any], Times | None, tuple[str, ...]]:
        times, ids = position.times_ns, position.product_ids
        if times is None or not len(times) or (modality == "DEM" and not times.any()):
            return pixels, None, ids
        n_dates = pixels.shape[0]
        if len(times) != n_dates:
            self.find(
                "damaged-time",
                modality,
                f"There are {len(times)} times for {n_dates} dates.",
                "read without times",
            )
            return pixels, None, ids
        stamps = id_times(ids) if len(ids) == n_dates else np.full(n_dates, NO_TIME)
        damaged = ~is_plausible(times)
        if damaged.any():
            values = ", ".join(str(int(t)) if t != NO_TIME else "none" for t in times[damaged])
            reason = f"Time of date {', '.join(map(str, np.flatnonzero(damaged)))} is {values} ns since 1970."
            if not is_plausible(stamps[damaged]).all():
                self.find("damaged-time", modality, reason, "read without times")
                return pixels, None, ids
            self.find("damaged-time", modality, reason, "taken from the product id")
            times = np.where(damaged, stamps, times)
        if not is_radar(modality) or not is_plausible(stamps).all():
            return pixels, times, ids
        order = match_slots(times, stamps)
        if order is None:
            reason = (
                f"The times in the product ids ({_iso(stamps)}) are not those of the dates ({_iso(times)})."
            )
            self.find("s1-order", modality, reason, "pixels kept, times corrected from the product ids")
            return pixels, stamps, ids
        if (order == np.arange(n_dates)).all():
            return pixels, times, ids
        reason = (
            f"Pixels and product ids are in the order {_iso(stamps)}, the times in the order {_iso(times)}."
        )
        self.find("s1-order", modality, reason, f"dates reordered to {order.tolist()}")
        return pixels[order], times, tuple(ids[i] for i in order)

    def _add_cloud_mask(self, sample: RawSample) -> None:
        for modality in CLOUD_MASK_ORDER:
            member = self.members.get(modality)
            if member is None or member.cloud_mask is None:
                continue
            owner = sample.modalities.get(modality)
            times, ids = (owner.times_ns, owner.product_ids) if owner else self._mask_times(member)
            address: MemberAddress = self.ref.members[modality]
            sample.modalities[CLOUD_MASK] = RawModality(member.cloud_mask, (CLOUD_MASK,), times, ids, address)
            return

    def _mask_times(self, member: Member) -> tuple[Times | None, tuple[str, ...]]:
        times = member.position.times_ns
        return (
            times if times is not None and is_plausible(times).all() else None
        ), member.position.product_ids


def _distance(a: Position, b: Position) -> str:
    """Name in words which of x, y and EPSG differ; empty if none does or one position does not say."""
    if a is b or b.x is None or b.y is None or a.x is None or a.y is None:
        return ""
    differ = [name for name, p, q in (("x", a.x, b.x), ("y", a.y, b.y)) if not _equal(p, q)]
    if None not in (a.epsg, b.epsg) and a.epsg != b.epsg:
        differ.append("crs")
    return " and ".join(differ)


def _is_square(position: Position) -> bool:
    return position.x is not None and position.y is not None and len(position.x) == len(position.y)


def _sizes(place: Position, member: Member) -> str:
    """Return both sizes in pixels, if they are what differs."""
    other = member.position
    if place.x is None or place.y is None or other.x is None or other.y is None:
        return ""
    sizes = (len(other.y), len(other.x)), (len(place.y), len(place.x))
    return "" if sizes[0] == sizes[1] else ": {} x {} and {} x {} pixels".format(*sizes[0], *sizes[1])


def _equal(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> bool:
    return p is q or (p.shape == q.shape and bool((np.abs(p - q) <= FOOTPRINT_TOLERANCE_M).all()))


def _known(value: float) -> float | None:
    return None if value != value else value


def _cloud_cover(metadata: Mapping[str, object]) -> tuple[float, ...] | None:
    found = metadata.get("cloud_cover")
    return found if isinstance(found, tuple) else None


def _iso(times_ns: Times) -> str:
    return ", ".join(np.datetime_as_string(times_ns.astype("M8[ns]"), unit="s").tolist())
