"""The meaning of an archive's arrays by the CF conventions: axes, packing, times, and the place of a sample."""
