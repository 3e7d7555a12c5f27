"""Groups of Zarr arrays (version 2 and 3) as archives hold them: metadata, chunks, codecs, each within stated limits."""
