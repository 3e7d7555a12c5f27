"""HTTP as its standards have it: ranges, negotiation, problem documents, tokens of the next page."""
