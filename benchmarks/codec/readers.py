"""Readers of other makes, each asked to open an array that was written with a chain: zarr-python, tensorstore and zarrs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codec.patches import Group
from tensorbank.layout import array_document
from tensorbank.reading import PROFILES, ShardAssembler, codec_for

__all__ = ["READERS", "opened_by_readers"]

Pixels = npt.NDArray[Any]


def _zarr_python(folder: Path) -> Pixels:
    import zarr

    return np.asarray(zarr.open_array(folder, mode="r")[:])


def _tensorstore(folder: Path) -> Pixels:
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    return np.asarray(tensorstore.open(spec).result().read().result())


def _zarrs(folder: Path) -> Pixels:
    import zarr
    import zarrs  # noqa: F401 - it registers its pipeline

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array = zarr.open_array(folder, mode="r")
        whole = np.asarray(array[:])
        np.testing.assert_array_equal(array[0, 0, 0, 3:5, 7:9], whole[0, 0, 0, 3:5, 7:9])
    return whole


READERS: Mapping[str, Callable[[Path], Pixels]] = {
    "zarr-python": _zarr_python,
    "tensorstore": _tensorstore,
    "zarrs": _zarrs,
}


def opened_by_readers(groups: Mapping[str, Group], folder: Path) -> dict[str, dict[str, str]]:
    """Return, for each chain and reader, ``yes`` or why not, over blocks of all groups."""
    written = {f"profile {profile}": _own_writer(profile) for profile in PROFILES}
    written |= {"numcodecs.delta, blosc": _with_delta, "numcodecs.pcodec": _with_pcodec}
    return {
        name: {reader: _verdict(write, read, groups, folder / name) for reader, read in READERS.items()}
        for name, write in written.items()
    }


Writer = Callable[[Group, Path], Pixels]


def _verdict(write: Writer, read: Callable[[Path], Pixels], groups: Mapping[str, Group], folder: Path) -> str:
    for name, group in groups.items():
        where = folder / read.__name__ / name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of codecs that are no part of the specification
                expected = write(group, where)
                found = read(where)
        except ModuleNotFoundError as error:
            return f"{error.name} is not installed"
        except Exception as error:  # noqa: BLE001 - whatever keeps a reader from an array is what is asked for
            return f"no ({type(error).__name__})"
        if found.tobytes() != expected.tobytes():
            return f"wrong pixels of {name}"
    return "yes"


def _pixels(group: Group) -> Pixels:
    """Return the first sample of a group, (1, 1, band, y, x)."""
    return np.stack(group.blocks[: group.modality.n_blocks])[None, None]


def _own_writer(profile: str) -> Writer:
    def write(group: Group, folder: Path) -> Pixels:
        codec = codec_for(profile, group.modality)
        assembler = ShardAssembler(1, group.modality.n_blocks)
        assembler.add(0, [codec.encode(block) for block in group.blocks[: group.modality.n_blocks]])
        shard = folder / "c/0/0/0/0/0"
        shard.parent.mkdir(parents=True)
        shard.write_bytes(b"".join(assembler.finish()))
        document = array_document(
            group.modality,
            [group.modality],
            n_samples=1,
            samples_per_shard=1,
            blosc=codec.configuration(),
            attributes={},
        )
        (folder / "zarr.json").write_text(json.dumps(document))
        return _pixels(group)

    return write


def _with_delta(group: Group, folder: Path) -> Pixels:
    import zarr
    from numcodecs.zarr3 import Delta

    pixels = _pixels(group)
    filters = [Delta(dtype=pixels.dtype.str)] if pixels.dtype.kind in "iu" else None
    array = zarr.create_array(folder, data=pixels, chunks=(1, 1, 1, *pixels.shape[3:]), filters=filters)
    return np.asarray(array[:])


def _with_pcodec(group: Group, folder: Path) -> Pixels:
    import zarr
    from numcodecs.zarr3 import PCodec

    pixels = _pixels(group)
    chunks = (1, 1, 1, *pixels.shape[3:])
    if pixels.dtype.itemsize == 1:
        return np.asarray(zarr.create_array(folder, data=pixels, chunks=chunks)[:])
    array = zarr.create_array(
        folder, data=pixels, chunks=chunks, serializer=PCodec(level=8), compressors=None
    )
    return np.asarray(array[:])
