"""Routes: thin functions between HTTP and the service."""
