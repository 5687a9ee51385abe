"""What fine-tuning on ten frames of another cohort gives.

  python ablations/fine_tuning.py --weights=FILE --data_dir=ACDC --json=FILE

The other cohort is made of the patients on whom the network was validated, whom it does not know: turned, of other voxels than the header says, and
with dark blood. From a few of them it learns, on the others it is judged, as a user would do it by the commands.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from absl import flags  # noqa: E402

from ica_unet_jax import launcher  # noqa: E402
from ica_unet_jax.data.case import Cine  # noqa: E402
from ica_unet_jax.errors import UserError  # noqa: E402
from ica_unet_jax.evaluation.corruptions import coloured, turned  # noqa: E402
from ica_unet_jax.inference import options  # noqa: E402
from ica_unet_jax.labels import STRUCTURES  # noqa: E402
from ica_unet_jax.reporting.markup import number, plain_table  # noqa: E402
from ica_unet_jax.runs.run_folder import read_config  # noqa: E402

LARGER = 1.3  # voxels, by the header, than they are
RECOMMENDED = ["--flagfile=launch/recommended.flags"]
BEFORE, AFTER, FRESH = "as it comes", "fine-tuned", "trained on these frames alone, from the start, in as many steps"
OTHER, OWN = "other", "own"


def main() -> None:
    from ica_unet_jax.data import reading
    from ica_unet_jax.evaluation import judging
    from ica_unet_jax.runs.provenance import commit, processor
    from ica_unet_jax.runtime import files

    given = flags.FLAGS
    files.check_place(given.json)
    trained = options.network()
    data = dataclasses.replace(trained.config.data, data_dir=given.data_dir)
    cases = judging.choose_cases(trained.split, data, "val")
    cines = [reading.read(case, data.label_map, codes="") for case in cases if case.labelled]
    if given.patients >= len(cines):
        raise UserError(f"--patients={given.patients} leaves nobody to judge of the {len(cines)} who validated: take fewer.")
    few = [cines[i] for i in np.linspace(0, len(cines) - 1, given.patients).astype(int)]  # of all groups, as ACDC sorts by them
    rest = [cine for cine in cines if cine not in few]
    with tempfile.TemporaryDirectory(prefix="fine_tuning_") as folder:
        result = measured(Path(folder), trained.path.absolute(), few, rest, given.steps)
    files.write_json(given.json, {"commit": commit(), "machine": processor()} | result)
    print(f"{sentence(result)}\n\n{table(result)}")


def measured(folder: Path, network: Path, few: Sequence[Cine], rest: Sequence[Cine], steps: int | None) -> dict[str, Any]:
    """Trains in `folder`; {"dice": {what was done: {OTHER and OWN: Dice of each structure and "mean"}}, "minutes": of the fine-tuning, ...}."""
    for name, cines, change in (("few", few, another), ("rest", rest, another), ("rest_own", rest, lambda cine: cine)):
        for cine in cines:
            write(folder / name, change(cine))
    here = [f"--data_dir={folder / 'few'}", "--nofinal_evaluation"]
    began = time.perf_counter()
    asked = [] if steps is None else [f"--steps={steps}"]
    call("train", *RECOMMENDED, "--flagfile=launch/fine_tuning.flags", *here, *asked, f"--init_from={network}", f"--workdir={folder / 'tuned'}")
    minutes = (time.perf_counter() - began) / 60
    steps = read_config(folder / "tuned").train.steps
    call("train", *RECOMMENDED, *here, "--split_by=none", f"--steps={steps}", f"--evaluate_every={steps}", f"--workdir={folder / 'fresh'}")
    dice = {BEFORE: judged(folder, network), AFTER: judged(folder, folder / "tuned"), FRESH: judged(folder, folder / "fresh")}
    return dict(dice=dice, minutes=minutes, steps=steps, frames=sum(len(cine.labels) for cine in few), patients=len(few), judged=len(rest))


def another(cine: Cine) -> Cine:
    """The cine as of another cohort: turned by 90 degrees, with voxels that are smaller than they are said to be, and dark blood."""
    still = np.random.default_rng(0)  # nothing is drawn
    seen = coloured(lambda x, random: 1 - np.clip(x, 0, 1))(turned(1)(cine, still), still)
    return dataclasses.replace(seen, spacing=(seen.spacing[0], *(LARGER * size for size in seen.spacing[1:])))


def write(folder: Path, cine: Cine) -> None:
    """The labelled frames, and the ones before them, as NAME_4d.nii.gz and NAME_frameNN_gt.nii.gz."""
    import nibabel as nib

    folder.mkdir(parents=True, exist_ok=True)
    kept = sorted({frame for labelled in cine.labels for frame in (max(labelled - 1, 0), labelled)})

    def save(name: str, volume: np.ndarray) -> None:
        image = nib.Nifti1Image(volume.T, np.diag([*cine.spacing[::-1], 1.0]))
        image.header.set_zooms([*cine.spacing[::-1], 1.0][: volume.ndim])
        nib.save(image, folder / name)

    save(f"{cine.case.name}_4d.nii.gz", np.stack([cine.frames[cine.times.index(frame)] for frame in kept]))
    for frame, labels in cine.labels.items():
        save(f"{cine.case.name}_frame{kept.index(frame) + 1:02d}_gt.nii.gz", labels)


def judged(folder: Path, network: Path) -> dict[str, dict[str, float]]:
    """The Dice of a network, of a run folder or a file of weights, on the rest, as they became and as they were."""
    found, flag = {}, "workdir" if network.is_dir() else "weights"
    for kind, data in ((OTHER, "rest"), (OWN, "rest_own")):
        out = folder / f"{network.stem}_{kind}"
        call("evaluate", f"--{flag}={network}", f"--data_dir={folder / data}", "--split=all", "--label_map=", f"--out={out}")
        found[kind] = json.loads((out / "summary.json").read_text(encoding="utf-8"))["dice"]
    return found


def call(command: str, *arguments: str) -> None:
    """Runs a command of the package. Raises UserError where it fails, which has said why."""
    done = subprocess.run([sys.executable, "-m", f"ica_unet_jax.{command}", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise UserError(f"ica_unet_jax.{command} {' '.join(arguments)} ended with {done.returncode}: see above.")


def table(result: dict[str, Any]) -> str:
    """The Dice before and after, and of a network that knows these frames alone."""
    rows = [[name, *(number(dice[OTHER][s], 3) for s in (*STRUCTURES, "mean")), number(dice[OWN]["mean"], 3)] for name, dice in result["dice"].items()]
    heads = ["Network", *(f"Dice {name}" for name in STRUCTURES), "mean", "mean, the same patients as they were"]
    return plain_table(heads, rows, [False, *[True] * 5])


def sentence(result: dict[str, Any]) -> str:
    """What it took, and what it gave."""
    before, after = (result["dice"][name][OTHER]["mean"] for name in (BEFORE, AFTER))
    return (
        f"From a mean Dice of {number(before, 3)} to {number(after, 3)} on {result['judged']} patients, by {result['frames']} frames of {result['patients']} others, "
        f"in {result['steps']} steps and {result['minutes']:.1f} minutes on two CPU cores, from the start of the command to its end."
    )


if __name__ == "__main__":
    options.define_network()
    flags.DEFINE_string("data_dir", None, "The cohort that it was trained on.", required=True)
    flags.DEFINE_string("json", None, "File for the result.", required=True)
    flags.DEFINE_integer("patients", 5, "Of those who validated, from so many it learns.", lower_bound=1)
    flags.DEFINE_integer("steps", None, "Instead of those of launch/fine_tuning.flags.", lower_bound=1)
    launcher.run(main)
