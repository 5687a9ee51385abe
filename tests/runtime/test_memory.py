"""Memory that is freed and asked for again comes without new pages."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, threading
from ica_unet_jax.runtime import memory
if sys.argv[1] == "keep":
    if not memory.keep_freed():
        sys.exit(3)
faults = []
def work():
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = bytearray(64 * 2**20)
        block[::4096] = bytes(len(block) // 4096)
        del block
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)  # as XLA's
thread.start()
thread.join()
print(min(faults[1:]))
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_pages_are_faulted_in_once():
    kept = faults("keep")
    assert kept < faults("as it is") / 4  # of 16384 pages of 4 KB, or 32 of 2 MB
