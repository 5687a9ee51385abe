import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import workers


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_come_in_the_order_of_the_items(jobs):
    """Some are there later than those behind them."""
    seconds = [0.2, 0.0, 0.1, 0.0]
    begun = time.monotonic()
    assert list(workers.ordered(time.sleep, seconds, jobs)) == [None] * 4 and time.monotonic() - begun > 0.2
    assert list(workers.ordered(abs, range(-9, 9), jobs)) == [abs(n) for n in range(-9, 9)]


def test_a_few_items_start_no_process_unless_asked():
    here = os.getpid()
    assert list(workers.ordered(eval, ["__import__('os').getpid()"] * 2, 0)) == [here] * 2
    assert here not in list(workers.ordered(eval, ["__import__('os').getpid()"] * 2, 2))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_comes_as_it_is(jobs):
    with pytest.raises(ValueError, match="invalid literal for int"):
        list(workers.ordered(int, ["1", "two", "3"], jobs))


def test_a_killed_process_is_told():
    with pytest.raises(UserError, match="was killed, perhaps for want of memory: ask for fewer"):
        list(workers.ordered(signal.raise_signal, [signal.SIGKILL] * 2, 2))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_they_end_with_the_first_process():
    program = "import time\nfrom ica_unet_jax.runtime import workers\nfor _ in workers.ordered(time.sleep, [0, 0, 600, 600], 2): print('.', flush=True)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as first:
        assert first.stdout.read(4) == b".\n.\n" and len(_members(first.pid)) >= 3
        first.kill()
    until = time.monotonic() + 10
    while _members(first.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _members(first.pid)


def _members(group):
    """The processes of a group that run."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(name))
    return found
