"""The deliveries of one node: by the state of its cache, and by the number of its processes."""
