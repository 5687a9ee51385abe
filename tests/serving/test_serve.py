"""The command: what was asked for reads each flag that is given, or says that it does not."""

import json
import subprocess
import sys

TRIED = """
import json, sys, types
from absl import flags
from ica_unet_jax import command_line, serve
from ica_unet_jax.errors import UserError

for arguments in json.loads(sys.argv[1]):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    command_line.parse(arguments, flags.FLAGS)
    try:
        serve.check()
        print()
    except UserError as error:
        print(error)

class Own(Exception):
    pass

def own_server(arguments):
    print(json.dumps(arguments))
    raise Own

sys.modules["ica_unet_jax.serving.clients.replay"] = types.SimpleNamespace(own_server=own_server)
command_line.parse(["--workdir=RUN", "--replay=a.nii", "--rate=3", "--slices=3", "--limit_mb=7", "--patience=5", "--queue=2"], flags.FLAGS)
try:
    serve.main()
except Own:
    pass
"""
READ = [
    [],
    ["--protocol=http", "--token=a", "--waiting=3"],
    ["--protocol=mrd", "--slices=3", "--reorder=3", "--queue=3", "--view", "--token=a"],
    ["--protocol=openigtlink", "--slices=3", "--queue=3", "--limit_mb=7"],
    ["--replay=a.nii", "--rate=3", "--seconds=3", "--output=b.nii", "--json=c.json", "--patience=3"],
    ["--replay=a.nii", "--workdir=RUN", "--slices=3", "--reorder=3", "--queue=3", "--view", "--token=a"],
    ["--replay=a.nii", "--workdir=RUN", "--protocol=openigtlink", "--slices=3", "--queue=3", "--patience=3"],
    ["--replay=a.nii", "--workdir=RUN", "--protocol=http", "--token=a", "--waiting=3", "--seconds=3"],
    ["--replay=a.nii", "--protocol=http", "--token=a"],
]
NOT_READ = [
    ["--token=a", "--protocol=mrd"],
    ["--token=a", "--protocol=openigtlink"],
    ["--token=a", "--replay=a.nii"],
    *([f"--{name}=3", "--protocol=http"] for name in ("slices", "reorder", "queue", "rate", "seconds")),
    ["--view", "--protocol=http"],
    ["--reorder=3", "--protocol=openigtlink"],
    ["--waiting=3", "--protocol=mrd"],
    *([f"--{name}=3", "--replay=a.nii"] for name in ("queue", "slices", "reorder", "limit_mb")),
    ["--view", "--replay=a.nii"],
    ["--waiting=3", "--replay=a.nii", "--protocol=http"],
    ["--queue=3", "--replay=a.nii", "--workdir=RUN", "--protocol=http"],
    ["--queue=3", "--openrecon=folder"],
    ["--output=a.nii"],
    ["--seconds=3", "--rate=0", "--replay=a.nii"],
]


def test_flags_that_nothing_reads_are_told_and_others_passed_on():
    done = subprocess.run([sys.executable, "-c", TRIED, json.dumps(READ + NOT_READ)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *told, passed = done.stdout.splitlines()
    assert told[: len(READ)] == [""] * len(READ) and len(told) == len(READ + NOT_READ)
    for arguments, text in zip(NOT_READ, told[len(READ) :], strict=True):
        assert text.startswith(arguments[0].partition("=")[0]) and "would change nothing with" in text
    assert {"--workdir=RUN", "--like=a.nii", "--slices=3", "--limit_mb=7", "--patience=5.0", "--queue=2", "--reorder=2"} <= set(json.loads(passed))
