"""Values that say what is asked and what was answered: queries, selections, mixes, plans, and the handles in them."""
