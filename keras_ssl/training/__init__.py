"""What happens between `fit(images)` and the trained weights: the step, one run of `fit`, and the trainer."""
