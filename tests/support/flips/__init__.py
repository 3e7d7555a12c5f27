"""Flipped bits: one file at a time of a bank, a plan, a state or a cache is damaged, and read as it usually is.

The answer must be the right one, or an error that names the file; never a wrong one, and never the end of the process.
:mod:`support.flips.bed` makes what is damaged, :mod:`support.flips.damage` damages it, :mod:`support.flips.trials` reads it and
judges, :mod:`support.flips.run` does so by the thousand, in processes whose death is noticed.
"""
