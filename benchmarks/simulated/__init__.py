"""Configurations of streaming that a machine can run, measured and simulated."""
