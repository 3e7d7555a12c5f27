"""Documents that the service hands out: rows, tensors, pictures, Zarr and STAC, made from the index and decoded blocks."""
