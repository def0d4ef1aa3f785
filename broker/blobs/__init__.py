"""Blobs of jobs: the pieces of the files that jobs leave and need, in a store of objects beside the queue's store.

```
 agent, client ──► Gateway ──► Ledger (lease, role) ──BlobsAsked──► Blobkeeper ──► threads ──► BlobStore ──► disk, S3, …
                      ◄───────────────── BlobsMissing, BlobsPut, BlobsGot ──────────┘
```

An EnqueueJobWithTree goes back to the Ledger once all blobs of its tree are claimed and there:

```
 Ledger ──BlobsAsked──► Blobkeeper ──EnqueueJob──► Ledger ──BlobsAsked──► Blobkeeper: the job gets the upload's claims
```

- `store.py` keeps blobs and claims as objects, each tenant's apart, and deletes what no job claims.
- `caches.py` keeps versions of jobs' caches as objects; a version claims its blobs as a job does.
- `folders.py` names the objects' folders.
- `objects.py` reads and writes objects on a disk or in a bucket; `address.py` opens them, as `--blobs` says.
- `bucket.py` opens a bucket, and `breaker.py` refuses requests at once while it is away.
- `keeper.py` answers requests about blobs in threads of its own, so that no other request waits for them.

A job *claims* a blob before it is put. A blob is kept while a job or a version that claims it exists.
"""
