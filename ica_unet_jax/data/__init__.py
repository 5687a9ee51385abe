"""Cases, their geometry, splits and the cache of preprocessed frames."""
