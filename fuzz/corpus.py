#!/usr/bin/env python3
"""The corpus of a target is one file here, and a folder for libFuzzer: `corpus.py unpack|pack TARGET FOLDER`."""

import pathlib
import sys

verb, target, folder = sys.argv[1:]
bundle = pathlib.Path(__file__).parent / "corpus" / target
folder = pathlib.Path(folder)
if verb == "pack":
    inputs = sorted({file.read_bytes() for file in folder.iterdir()}, key=lambda it: (len(it), it))
    bundle.write_bytes(b"".join(b"%d\n%s\n" % (len(it), it) for it in inputs))
    print(f"{len(inputs)} inputs, {bundle.stat().st_size} bytes")
elif verb == "unpack":
    folder.mkdir(parents=True, exist_ok=True)
    rest = bundle.read_bytes()
    number = 0
    while rest:
        length, rest = rest.split(b"\n", 1)
        (folder / f"{number:04}").write_bytes(rest[: int(length)])
        rest = rest[int(length) + 1 :]
        number += 1
    print(f"{number} inputs")
else:
    sys.exit(__doc__)
