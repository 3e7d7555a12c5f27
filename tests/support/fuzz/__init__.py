"""Fuzzers that run for as long as they are told to, outside of the tests: ``make fuzz SECONDS=3600``.

A target is a module of this package with a function ``fuzz(cases: Cases) -> None``. It makes what it needs once, then works on
one case after another, each made from its number alone, so that a finding can be repeated from the number::

    def fuzz(cases: Cases) -> None:
        for number in cases:
            rng = np.random.default_rng(number)
            ...
            cases.count("statements")
            if got != expected:
                cases.finding(f"{sql}: {got} instead of {expected}")

Each target runs in a process of its own and gets an equal share of the time. A target that raises, dies or hangs is a finding
too, and the summary names the case that it was working on. ``python -m fuzz --target sql --seed NUMBER --cases 1`` repeats it.
"""
