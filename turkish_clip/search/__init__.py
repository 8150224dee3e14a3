"""An index of images, on disk or on object storage, that follows a folder and is searched by words or by an image."""

from turkish_clip.search.composition import Query, QueryError, weighted
from turkish_clip.search.index import Answer, Hit, ImageIndex
from turkish_clip.search.storage import ImageIndexError

__all__ = ["Answer", "Hit", "ImageIndex", "ImageIndexError", "Query", "QueryError", "weighted"]
