"""The Zarr documents of a part that has one modality, for other readers."""

from __future__ import annotations

import json

import tensorbank
from tensorbank.catalog import part_document
from tensorbank.layout import array_attributes, array_document, array_key, part_key
from tensorbank.reading import codec_for
from tensorbank.schema import Modality, TableSchema
from tensorbank.storage import Store
from tensorbank_indexer.modality_changes.change_plan import PartChange
from tensorbank_indexer.modality_changes.origins import Origin
from tensorbank_indexer.options import IngestOptions

__all__ = ["write_documents"]


def write_documents(
    store: Store,
    part: PartChange,
    schema: TableSchema,
    modality: Modality,
    origin: Origin,
    options: IngestOptions,
) -> None:
    """Write the document of the array and then that of the group.

    Parameters
    ----------
    schema
        The modalities of the table after the change: they decide the names of axes.
    """
    table = part.tasks[0].table
    document = array_document(
        modality,
        schema.modalities,
        n_samples=part.n_rows,
        samples_per_shard=part.samples_per_shard,
        blosc=codec_for(options.profile, modality).configuration(),
        attributes=array_attributes(modality),
    )
    attributes: dict[str, object] = {
        "Conventions": "CF-1.11",
        "source": origin.name,
        "source_format": origin.format,
        "source_revision": origin.revision,
        "source_etags": dict(origin.etags()),
        "rows_of": part.base,
        "crs": "each sample lies in the UTM zone of its EPSG code: column epsg of the samples table",
        "history": f"written by tensorbank {tensorbank.__version__}, codec profile {options.profile}",
        **origin.attributes,
        **({"licence": options.licence} if options.licence else {}),
    }
    array = json.dumps(document, indent=1).encode()
    store.put(f"{array_key(table, part.part, modality.name)}/zarr.json", array)
    group = part_document(part.part, attributes, {modality.name: document})
    store.put(f"{part_key(table, part.part)}/zarr.json", group)
