"""Measures of a sample: statistics of its pixels, its place and time, its radiometric offset, and values that look wrong."""
