"""The library's whole files and folders, under the name that the commands use."""

from __future__ import annotations

from turkish_clip.atomic import PARTIAL_SUFFIX, whole_file, whole_folder, write_json, write_text

__all__ = ["PARTIAL_SUFFIX", "whole_file", "whole_folder", "write_json", "write_text"]
