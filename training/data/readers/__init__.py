"""Readers of sources: tables, JSON files, folders, WebDataset shards, Parquet files and Hub data sets."""
