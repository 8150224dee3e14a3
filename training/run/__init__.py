"""The common ground of all commands: configuration, run folder and record, ranks, and temporary storage."""
