"""PostgreSQL engine of the store, for several brokers. It has statements and the schema, and decides nothing.

schema: tables, versions · connecting: connections, errors · opening: checks · engine: batches · pages: lists, logs
"""
