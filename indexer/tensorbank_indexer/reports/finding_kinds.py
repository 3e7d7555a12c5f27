"""The kinds of findings of an ingest: what each means, and which of them cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CHANGES", "FINDING_KINDS", "HARMLESS", "REFRESHED"]

CHANGES: Mapping[str, str] = MappingProxyType(
    {
        "changed-source": "what the table has of it stays as it was; --refresh replaces it",
        "new-source-file": "not added to samples that the table has already; --refresh adds it",
    }
)
"""The kinds of findings about files that changed after their samples were ingested, and what was done."""
REFRESHED = "the table takes what it holds now"
"""The action of such findings where a refresh was asked for."""

HARMLESS = frozenset(
    {
        "deflated-entries",
        "flipped",
        "missing-value",
        "moved-source",
        "offset-baseline",
        "other-type",
        "stray-file",
        "transposed",
        "unpacked",
        "zarr-v3",
    }
)
"""The kinds of findings that cost no data and change none: ``strict`` lets them pass."""

FINDING_KINDS: Mapping[str, str] = MappingProxyType(
    {
        # files and archives
        "changed-source": "A file is not the one that was ingested. The table keeps what it has, unless `--refresh` replaces it.",
        "compressed-archive": "An archive is compressed as a whole, so that no member can be read by its range. It is left out.",
        "corrupt-archive": "A stretch of a tar is damaged. Reading goes on at the next sound header.",
        "moved-source": "A file has another path than when it was ingested, and is the same by its ETag. Nothing is done.",
        "new-source-file": "A file is new, but its samples are in the table. They stay without it, unless `--refresh` adds it.",
        "stray-file": "A file or member does not belong to the dataset. It is ignored.",
        "truncated-archive": "A tar or zip is cut off. What is complete in a tar is read.",
        "unreadable-archive": "An archive cannot be listed, for an unexpected reason. It is left out.",
        # members
        "codec": "The pixels are compressed by a codec that cannot be decoded here. The modality is left out.",
        "corrupt-chunk": "A chunk or array is damaged. The modality, coordinate or mask that it belongs to is left out.",
        "corrupt-member": "A member cannot be read. The modality is left out.",
        "deflated-entries": "The entries of a member are deflated, where published ones are stored. They are read all the same.",
        "duplicate-member": "A member occurs twice in an archive. The first is taken.",
        "encrypted-entry": "An entry of a zip is encrypted. The modality is left out.",
        "missing-member": "An archive lacks a member or file that its modalities have elsewhere. Samples are read without it.",
        "over-limit": "Reading needs more memory or time than the limits allow. The modality or table is left out.",
        "unsupported-member": "A member is a link, a sparse file or has an unusable name. It is left out.",
        "zarr-v3": "A member is of Zarr version 3, where the published ones are of version 2. It is read all the same.",
        "zip-method": "An entry of a zip is compressed by a method other than deflate. The modality is left out.",
        # what arrays mean
        "band-names": "The bands have no distinct, usable names. They get names by number.",
        "flipped": "Rows or columns run the other way. They are stored from north to south and west to east.",
        "ignored-attribute": "An attribute that may change what numbers mean is not understood. Values are kept as stored.",
        "metadata-mismatch": "An array's own metadata differ from the consolidated ones. The consolidated ones count.",
        "missing-value": "Some pixels have the value that is declared as missing. They are stored as NaN.",
        "transposed": "The axes are in another order. The pixels are stored as time, band, y, x.",
        "unknown-axes": "The axes have unknown names. They are taken by their order.",
        "unpacked": "Scale, offset or missing value are declared. The pixels are stored as the numbers that they mean.",
        # id, place and time
        "bad-centre": "A centre is not a longitude and latitude. The sample is kept without it.",
        "bad-georeference": "Coordinates or coordinate system cannot be right. The sample is kept without a footprint.",
        "bad-value": "A value does not fit its column of the index. It is left empty.",
        "cloud-cover-range": "The cloud cover is not between 0 and 1. It is taken from the cloud mask, or left empty.",
        "corrupt-metadata": "The metadata table is damaged in part or as a whole. The members tell id, place and time.",
        "damaged-id": "A sample id is empty, too long or not printable. It is read without the id, or left out.",
        "damaged-time": "A time cannot be right. It is taken from the product id, or left empty.",
        "footprint-mismatch": "A modality has other coordinates than the rest of its sample. It is read all the same.",
        "longitude-range": "A longitude lies beyond 180 degrees. It is turned by 360.",
        "place-mismatch": "The centre lies outside of the footprint. The centre counts, and the footprint is left empty.",
        "s1-order": "The dates of Sentinel-1 are not in the order of their times. They are put in order by product id.",
        "sample-id-mismatch": "Members or the metadata table disagree on a sample's id. The id of most members counts.",
        # samples and their table
        "duplicate-sample": "A sample id or stem occurs twice in a split. The first is kept.",
        "nameless-sample": "A sample has no usable id or stem. It is left out.",
        "no-modality": "Nothing of a sample can be kept. It is left out.",
        "other-bands": "A modality has other bands than in the table. It is left out.",
        "other-dtype": "A modality has another type than in the table, which does not hold its pixels exactly. It is left out.",
        "other-shape": "A modality has another shape than in the table, or more dates. It is left out.",
        "other-times": "A modality that is added or replaced has other dates than columns say. It is stored, and they stay.",
        "other-type": "A modality has another type than in the table, which holds each of its pixels exactly. It is converted.",
        "unknown-modality": "The table has no such modality. It is left out.",
        "unknown-sample": "Samples of a source whose modality is added or replaced are not in the table. They are left out.",
        "unreadable-sample": "The source failed at a sample, for an unexpected reason. It is left out.",
        "unusable-modality": "A modality cannot be measured or encoded. It is left out.",
        # values, which are always kept as they are
        "infinite-pixels": "Some pixels are infinite. They count as not valid.",
        "nan-only-band": "A band has no valid pixel. Its statistics are null.",
        "offset-baseline": "The pixels carry an offset that the product's baseline does not add. The pixels count.",
        "too-many-classes": "A map of classes has more than 256 codes without a name. They count in no share.",
        "unknown-class": "Pixels have a code without a name. They count in no share.",
        "value-range": "Values lie outside of the plausible range of their modality. They are kept.",
    }
)
"""The kinds of findings that the sources of this package and an ingest report, each with its meaning and what is done about it.

A source of one's own may have kinds of its own; ``strict`` does not let those pass.
"""
