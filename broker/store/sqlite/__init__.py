"""SQLite engine of the store: one file, WAL, `synchronous=FULL`; statements and schema, and no decision.

opening: files, schema · rows: sets of rows, damage · pages: lists, logs · engine: batches · copying: online copies
"""
