"""Kill runs at random moments, let the next ones go on, and compare with an undisturbed run."""
