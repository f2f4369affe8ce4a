"""What the tests of benchmarks/process.py call in a process of its own."""

import os
import sys
import time


def identity(**given):
    return {"pid": os.getpid(), "torch": "torch" in sys.modules, **given}


def hold(mib, seconds):
    held = b"x" * (mib << 20)
    time.sleep(seconds)
    return {"length": len(held)}


def fail():
    raise ValueError("no such thing")
