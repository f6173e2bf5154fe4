"""Base: errors, files, storage, processes, text. Knows nothing of matting."""
