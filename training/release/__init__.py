"""Publication: the model card, the pre-publish checks, the folder that is published, and its upload."""
