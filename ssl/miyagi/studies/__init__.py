"""A finding as a study: claim, experiments, test and smallest effect that matters, all written before it runs."""
