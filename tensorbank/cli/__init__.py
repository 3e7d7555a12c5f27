"""The ``tensorbank`` command."""
