"""A bank behind a service: its tables, selections and plans, asked for over HTTP."""
