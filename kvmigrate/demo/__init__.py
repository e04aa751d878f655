"""What `kvmigrate demo` shows: an example store that can be made at any size."""
