"""Settings of each loader. The class and field names are public API."""
