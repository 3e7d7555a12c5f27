"""A cache on a local disk: byte ranges of stored objects, verified, within a limit, shared by the processes of a node."""
