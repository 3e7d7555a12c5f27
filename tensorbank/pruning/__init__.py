"""Conditions that rows must satisfy, and the files, shards and row groups that therefore cannot hold an answer."""
