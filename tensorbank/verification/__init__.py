"""Verification of a stored snapshot: the checksum of every block, and the documents that other readers go by."""
