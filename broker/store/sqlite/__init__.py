"""SQLite engine of the store: one file, WAL, `synchronous=FULL`. It has statements and the schema, and decides nothing.

opening: files, schema · rows: sets of rows, damage · pages: lists, logs · engine: batches · copying: online copies
"""
