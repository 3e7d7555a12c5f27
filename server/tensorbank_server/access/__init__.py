"""Access: keys and tokens of callers, limits on what they ask for, and keys of a store that are lent to them."""
