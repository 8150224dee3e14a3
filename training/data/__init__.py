"""Sources of captioned images: folders, tables, data sets and shards, read into rows on disk."""
