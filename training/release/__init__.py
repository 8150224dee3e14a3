"""Publication: the model card, the pre-publish checks, the folder that goes up, and the upload."""
