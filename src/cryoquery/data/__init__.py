"""The dataset on disk, and what a training run may see of it."""
