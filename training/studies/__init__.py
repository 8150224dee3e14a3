"""Studies: commands that train or measure many models, and put them side by side."""
