"""Work beside the event loop: processes for queries, a sandbox for SQL of callers, and threads and limits for each bank."""
