"""One session per archive and process: its limits, its clients and its counters.

Archives and readers get every connection from a session, so politeness (connections in flight,
requests a second) holds wherever they run, and every request is counted.
"""
