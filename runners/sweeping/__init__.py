"""Sweeps over hyperparameters: what is searched, which trials that makes, and what they came to."""
