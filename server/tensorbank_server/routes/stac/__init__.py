"""Routes of the STAC API: its catalog and the search for items."""
