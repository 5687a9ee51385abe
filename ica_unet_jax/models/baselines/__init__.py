"""Published methods for comparison, one file each."""
