"""The library of uploaded files: their contents on disk, what is known of them in the database."""

from commonweight.files.library import MAX_FILE_BYTES, Library, Upload, too_large

__all__ = ["MAX_FILE_BYTES", "Library", "Upload", "too_large"]
