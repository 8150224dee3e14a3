"""What every command stands on: its configuration, its run folder and record, its ranks, its temporary files."""
