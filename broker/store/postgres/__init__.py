"""PostgreSQL engine of the store, for several brokers. It has statements and the schema, and decides nothing.

schema: tables · connecting: links, errors · opening: checks · durability: warnings · engine, pages: batches, lists
"""
