"""Tables, as of a sweep, of runs that were trained one by one: each is compared with the first, fold by fold.

  python ablations/collect.py --runs=runs/both,runs/past,runs/student --workdir=runs/compared

A run is a folder of `ica_unet_jax.train` or of `ica_unet_jax.cross_validate`; those that differ in seed and fold alone are one
cell. They stay as they are, weights and all.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from absl import flags  # noqa: E402

from ica_unet_jax import launcher  # noqa: E402
from ica_unet_jax.errors import UserError  # noqa: E402
from ica_unet_jax.sweeps.plan import Run, cell_name, describe_study, of_runs  # noqa: E402
from ica_unet_jax.sweeps.study import Study  # noqa: E402

_RUNS = flags.DEFINE_list("runs", None, "Folders of runs or of cross-validations; the first is the reference.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the figures and the tables.", required=True)
_NAME = flags.DEFINE_string("name", "compared", "Name of the table's files.")
_QUESTION = flags.DEFINE_string("question", "How do these runs compare?", "Heading of the table.")


def main() -> None:
    collect([Path(folder) for folder in _RUNS.value], Path(_WORKDIR.value), _NAME.value, _QUESTION.value)
    print(Path(_WORKDIR.value) / "index.md")


def collect(folders: Sequence[Path], workdir: Path, name: str = "compared", question: str = "How do these runs compare?") -> None:
    """Writes sweep.json, the figures of all runs, and their tables into `workdir`; nothing where they do not fit.

    Raises:
      UserError: a folder holds no run, or one that is not trained or judged to its last step; two runs have the same
        settings, seed and fold; runs that cannot share a table; `workdir` holds a sweep of other studies.
    """
    from ica_unet_jax.runs import provenance, run_folder, status
    from ica_unet_jax.runtime.files import write_json, writing
    from ica_unet_jax.sweeps import cell, records, setting, tables

    if (held := workdir / "sweep.json").is_file() and [study["name"] for study in json.loads(held.read_text(encoding="utf-8"))["studies"]] != [name]:
        raise UserError(f"--workdir={workdir} holds a sweep of other studies: choose another folder.")
    runs: dict[tuple[str, str], tuple[Run, Path]] = {}
    for folder in (part for given in folders for part in parts(given)):
        config = run_folder.read_config(folder).replace(workdir=str(folder), split_file="")  # the tables compare the splits themselves
        if status.of(config) != status.DONE:
            raise UserError(f"{folder} is not trained and judged to its last step: go on with its command, then evaluate --workdir={folder}.")
        reference = next(iter(runs.values()))[0].config if runs else config
        run = Run(cell_name(config, reference), config)
        if (run.cell, run.name) in runs:
            raise UserError(f"{runs[run.cell, run.name][1]} and {folder} have the same settings, seed and fold: leave one out.")
        runs[run.cell, run.name] = run, folder

    reference, *others = (run.config for run, _ in runs.values())
    about = [provenance.read(folder) for _, folder in runs.values()]
    changes = [setting.turned(other, reference) for other in others]
    facts = {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "commit": ", ".join(dict.fromkeys(each["commit"] for each in about)),
        "hardware": {key: about[0][key] for key in ("cores", "machine")},
        **of_runs((run.config.train.seed, run.config.data.fold) for run, _ in runs.values()),
        "studies": [describe_study(Study(name, question, "", changes), reference, reference)],
    }
    with tempfile.TemporaryDirectory() as place:  # whether they fit into one table is known when it is made
        made = Path(place)
        for run, folder in runs.values():
            cell.keep_figures(run.config, folder, made / "cells" / run.cell / run.name, "done", "", run.config.train.steps, None)
        write_json(made / "sweep.json", facts)
        records.compact(made)
        tables.write_all(made)
        with writing(workdir):
            shutil.rmtree(workdir / "cells", ignore_errors=True)  # of an earlier version
            shutil.copytree(made, workdir, dirs_exist_ok=True)


def parts(folder: Path) -> list[Path]:
    """The runs in a folder: its folds, or itself."""
    return sorted(path for path in folder.glob("fold*") if path.is_dir()) or [folder]


if __name__ == "__main__":
    launcher.run(main)
