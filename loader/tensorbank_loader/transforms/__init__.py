"""Transforms of whole batches on the device."""
