"""Many byte ranges at once: how many are under way, when one is late and asked for again, and what was delivered."""
