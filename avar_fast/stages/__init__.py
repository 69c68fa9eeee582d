"""The training stages: one file each for what happens in a step."""
