"""JSON Schemas of what macroscope writes, as package data (``importlib.resources``)."""
