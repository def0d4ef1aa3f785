"""PostgreSQL engine of the store, for several brokers. It has statements and the schema, and decides nothing.

schema: tables · connecting: links, errors · opening: checks · durability: warnings · arrays, trips: round trips
loading, adopting, saving: the two trips of a batch · places: where to search · pages: lists, logs · engine: the port
"""
