"""What each subcommand of `macroscope` does."""
