"""What trains, measures and publishes a Turkish text encoder: one module per command, above the packages they use."""
