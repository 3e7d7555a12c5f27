"""Orders of samples: arithmetic on seed, epoch and place that is the same in every process."""
