"""Epochs shared by many processes: who reads which batch, and the state that resumes a run."""
