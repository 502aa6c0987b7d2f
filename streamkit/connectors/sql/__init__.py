"""Tables of SQL databases as sources and sinks: PostgreSQL, SQLite and others."""
