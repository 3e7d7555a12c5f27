"""Routes of plans: asked for, delivered in tasks, read through the service, and the credentials to read them elsewhere."""
