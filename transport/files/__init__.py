"""Files of jobs between a broker's blobs and a disk: both agents and clients fetch their pieces, and write them.

```
 slices ──► Pieces ──GetBlob──► broker
              └──► contents ──► Restorer ──► files below a folder
```

- `pieces.py` requests the pieces of files, several requests at once, and checks each.
- `restoring.py` writes files, links and folders below a folder, and never outside of it.
"""
