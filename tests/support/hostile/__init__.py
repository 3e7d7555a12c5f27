"""Members, tars and tables that nobody should have to read, and what must hold when somebody does."""
