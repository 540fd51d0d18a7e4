"""File library: uploads, with contents on disk and metadata in the database."""

from commonweight.files.library import MAX_FILE_BYTES, Library, Upload, make_too_large_error

__all__ = ["MAX_FILE_BYTES", "Library", "Upload", "make_too_large_error"]
