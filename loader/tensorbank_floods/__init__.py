"""A fine-tuning that maps floods from four dates of optical and radar images, in plain PyTorch, on a made-up archive.

Samples are as those of ImpactMesh's floods: S2L2A and S1RTC of four dates, elevation, and a mask of three classes. ``tensorbank
demo-floods`` makes them, trains on some events, and measures on others.
"""
