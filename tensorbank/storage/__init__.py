"""An object store: its address and credentials, objects by key, what its errors mean, and when to ask again."""
