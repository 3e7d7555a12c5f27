"""An S3 server of its own on loopback: SeaweedFS, gone with the program that started it."""
