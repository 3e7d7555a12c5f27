"""Made-up archives of an invented landscape: seeded, laid out like the published ones, with a checksum of every tensor."""
