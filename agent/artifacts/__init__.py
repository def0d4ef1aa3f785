"""Artifacts: the files that a job leaves, which its agent stores at the broker when the command has ended.

```
 checkout ──► collecting ──► packing ──► uploading ──HaveBlobs, PutBlob──► broker
              globs, tree    pieces      windows                             ▲
                                            └──► ARTIFACT events ────────────┘
```

- `globs.py` decides which paths the patterns of a job name (pure).
- `tree.py` opens folders and files below the checkout, and follows no link; `collecting.py` finds there what is kept.
- `packing.py` cuts files into pieces (pure): small files share one, and a large one has many.
- `uploading.py` stores the pieces that the broker does not have, for all attempts of the agent.
- `flow.py` passes files on in windows of pieces, as they are read.
- `step.py` is the step of an attempt: it has all of this done, and records an event for each file once it is stored.

`attempt/` runs the step after the command; `agent.py` makes the uplink that all attempts share.
"""
