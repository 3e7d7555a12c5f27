"""10,000 cloud-free summer samples, two a place at most, balanced over land cover, 30 % trees at least, S1 within a day.

    python benchmarks/examples/balanced_forests.py BANK TABLE [--samples 10000]

A place is a location of SSL4EO-S12 or a cell of Major-TOM, whichever a sample has. One query, and what the planner says of it;
then how the samples lie over land cover, and the first batch. Every step is SQL over
the index: no pixel is read before the first batch.
"""

from __future__ import annotations

import argparse

import tensorbank as tb

# %% The question, step by step
SQL = """
WITH candidates AS (
    SELECT sample_id, coalesce(location_id, cell_id, sample_id) AS place, cloud_cover, S2L2A, S1RTC,
           dominant_class(LULC) AS cover
    FROM {table}
    WHERE season = 'summer'
      AND cloud_cover < 0.05
      AND LULC.share.trees >= 0.3
      AND abs(S1_S2_difference_s) <= 86400
      AND S1RTC IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY place ORDER BY cloud_cover, sample_id) <= 2
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY cover ORDER BY hash(sample_id, 7)) AS rank_in_cover
    FROM candidates
)
SELECT sample_id, place, cover, bands(S2L2A, ['B04', 'B08']) AS S2L2A, S1RTC
FROM ranked
ORDER BY rank_in_cover, cover
LIMIT {n_samples}
"""


def main() -> None:
    """Ask, explain, look."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--samples", type=int, default=10_000)
    options = parser.parse_args()

    # %% The plan, and what it skipped
    bank = tb.open(options.bank)
    query = bank.sql(SQL.format(table=options.table, n_samples=options.samples))
    plan = query.plan()
    print(plan.explain())
    if not len(plan):
        print("\nno sample is all of that; a bank of `make demo` has some")
        return

    # %% How the samples lie over land cover: taken in turn, so classes are as equal as the archive allows
    counts = plan.table.group_by("cover").aggregate([("sample_id", "count")]).sort_by("cover").to_pylist()
    print()
    for row in counts:
        print(f"{row['cover']:<20}{row['sample_id_count']:>8,}")

    # %% The first batch
    with plan.dataloader(batch_size=min(64, max(len(plan), 1)), seed=7) as loader:
        for batch in loader:
            print()
            print({name: tuple(tensor.shape) for name, tensor in batch.items() if hasattr(tensor, "shape")})
            break


if __name__ == "__main__":
    main()
