"""Measurements of streaming, question by question:
each module has ``measure(setup)``, which gives figures.
"""
