"""Screen a folder overnight: bad pictures are recorded and stop nothing, memory stays flat, the order is the folder's.

    python examples/screen_folder.py MODEL.fusedx FOLDER > results.jsonl

`fusedx classify` does this with more comfort; this is the same in a program of your own.
"""

import json
import sys
from pathlib import Path

import fusedx

if len(sys.argv) != 3:
    sys.exit(__doc__)
model = fusedx.load(sys.argv[1])
files = sorted(p for p in Path(sys.argv[2]).rglob("*") if p.is_file())
for result in model.stream(files, batch_size=32):
    if isinstance(result, fusedx.Failure):
        print(json.dumps({"source": result.source, "failed": result.reason, "message": result.message}), flush=True)
    else:
        print(json.dumps(result.to_dict()), flush=True)
