"""Planning: a statement and a catalog in, a plan out."""
