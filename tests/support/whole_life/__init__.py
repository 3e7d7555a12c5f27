"""The whole life of a small table: operations of several writers, a model of what they do, and what readers are told."""
