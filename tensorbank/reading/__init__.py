"""Samples read: from the byte ranges of a plan to decoded blocks in the caller's buffers."""
