"""A trained network to those who use it, of a run folder or of a weights file.

A weights file, `NAME.safetensors`, holds the variables by their place in the network and in its header `FACTS`, each as JSON: what a run
folder holds but for the state of its optimizer and what was made of it. It can be given away. Those in `WEIGHTS` come with the package.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialized

from ica_unet_jax.config import Config
from ica_unet_jax.data.orientation import Cohort
from ica_unet_jax.data.splits import Split
from ica_unet_jax.errors import UserError
from ica_unet_jax.labels import STRUCTURES
from ica_unet_jax.metrics import doubts
from ica_unet_jax.models.networks import init_variables, same_shapes
from ica_unet_jax.runs import checkpoints, provenance, run_folder
from ica_unet_jax.runtime import packages
from ica_unet_jax.runtime.files import replacing

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
SUFFIX = ".safetensors"
HUB = "hf:"  # before OWNER/NAME, a repository of Hugging Face
FACTS = ("config", "step", "labels", "orientation", "doubts", "split", "provenance", "licence", "weights_sha256")

Variables = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """The network of a run folder, whose files are read when they are asked for; they raise UserError where they do not do."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def folder(self) -> Path:
        """Where what is made of the network is written, unless another place is named."""
        return self.path

    @property
    def config(self) -> Config:
        return run_folder.read_config(self.path)

    @property
    def orientation(self) -> Cohort:
        """How the training patients lay."""
        return run_folder.read_orientation(self.path)

    @property
    def doubt_limits(self) -> Mapping[str, float]:
        """Where doubt in its masks begins."""
        return doubts.LIMITS | run_folder.read_doubts(self.path)

    @property
    def split(self) -> Split:
        return run_folder.read_split(self.path)

    @property
    def provenance(self) -> dict[str, Any]:
        return provenance.read(self.path)

    @property
    def began_in(self) -> Path | None:
        """The folder that relative paths of the configuration are of, where that is known."""
        return run_folder.began_in(self.path)

    def variables(self, checkpoint: str = "latest") -> tuple[Variables, int]:
        """What the network is applied with, arrays of the host, and the step that it is of; `checkpoint` is latest or best."""
        state = checkpoints.restore(self.path, checkpoint)
        return _fitting(state.variables, self), int(state.step)


@dataclasses.dataclass(frozen=True)
class Weights:
    """The network of a weights file, `name` to the user; else as `Run`."""

    name: str
    path: Path
    folder = None  # of its own
    began_in = None

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """`FACTS`, of the header."""
        try:
            with safe_open(self.path, "numpy") as file:
                header = {"doubts": "{}"} | (file.metadata() or {})  # which earlier files do not have
            return _well_formed({name: json.loads(header[name]) for name in FACTS})
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.name} holds no weights of this package, or is damaged ({_reason(error)}): get it again.") from error

    @functools.cached_property
    def config(self) -> Config:
        try:
            return Config.recorded(self.facts["config"])
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.name} describes no network of this version ({_reason(error)}): install the latest one.") from error

    @property
    def orientation(self) -> Cohort:
        return Cohort(**self.facts["orientation"])

    @property
    def doubt_limits(self) -> Mapping[str, float]:
        return doubts.LIMITS | self.facts["doubts"]

    @property
    def split(self) -> Split:
        """Without names, unless these were kept."""
        return self.facts["split"]

    @property
    def provenance(self) -> dict[str, Any]:
        return self.facts["provenance"]

    def variables(self, checkpoint: str = "latest") -> tuple[Variables, int]:
        """As `Run.variables`; there is one checkpoint alone."""
        if checkpoint != "latest":
            raise UserError(f"--checkpoint={checkpoint}: {self.name} holds one checkpoint alone; leave it out.")
        facts = self.facts
        with safe_open(self.path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        if digest(arrays) != facts["weights_sha256"]:
            raise UserError(f"{self.name} is damaged: its weights are not those that were written; get it again.")
        places = traverse_util.unflatten_dict({name: array.astype(np.float32) for name, array in arrays.items()}, sep="/")
        return _fitting({"batch_stats": {}} | places, self), int(facts["step"])  # a network may have none


Trained = Run | Weights


def find(network: str | Path | Trained) -> Trained:
    """The network of a run folder or a weights file, of the name of weights in the package, or of hf:OWNER/NAME.

    Raises:
      UserError: it is none of these.
    """
    if isinstance(network, Trained):
        return network
    name, path = str(network), Path(network)
    if not path.is_dir() and (name in names() or name.startswith(HUB) or path.suffix == SUFFIX):
        return weights(name)
    return Run(path)


def weights(name: str) -> Weights:
    """The network of --weights: weights of the package by their name, a repository hf:OWNER/NAME, or a file.

    Raises:
      UserError: it is none of these.
    """
    if name in names():
        return Weights(name, WEIGHTS / f"{name}{SUFFIX}")
    path = _from_hub(name) if name.startswith(HUB) else Path(name)
    if not path.is_file():
        known = f", of {', '.join(names())} in the package" if names() else ""
        raise UserError(f"--weights={name} is not there: name a file that ends in {SUFFIX}, or weights by their name{known}, or {HUB}OWNER/NAME.")
    return Weights(name, path)


def names() -> list[str]:
    """The weights that come with the package."""
    return sorted(path.stem for path in WEIGHTS.glob(f"*{SUFFIX}"))


def save(
    network: str | Path | Trained, target: str | Path, *, checkpoint: str = "latest", half: bool = False, licence: str = "", names: bool = False
) -> None:
    """Writes a network as a weights file.

    Args:
      network: as `find` finds it.
      target: file to write.
      checkpoint: latest or best.
      half: in float16.
      licence: of the weights, which may differ from the code's.
      names: keep those of the patients that it was trained and validated on.

    Raises:
      UserError: no such network, or a file that cannot be written.
    """
    trained = find(network)
    variables, step = trained.variables(checkpoint)
    kind, unset = np.float16 if half else np.float32, Config().flat()
    arrays = {name: np.asarray(value, kind) for name, value in traverse_util.flatten_dict(variables, sep="/").items()}
    facts = {
        "config": trained.config.replace(**{name: unset[name] for name in run_folder.MAY_CHANGE}).flat(),  # folders tell nothing elsewhere
        "step": step,
        "labels": STRUCTURES,
        "orientation": trained.orientation._asdict(),
        "doubts": {sign: limit for sign, limit in trained.doubt_limits.items() if sign not in doubts.LIMITS},
        "split": {part: patients if names else [] for part, patients in trained.split.items()},
        "provenance": {name: fact for name, fact in trained.provenance.items() if name != "command"},
        "licence": licence,
        "weights_sha256": digest(arrays),
    }
    with replacing(target) as temporary:
        temporary.write_bytes(serialized(arrays, {name: json.dumps(facts[name]) for name in FACTS}))  # its own files nobody else may read


def digest(variables: Variables) -> str:
    """SHA-256 of a network's values, nested or by their places joined with "/", in the order of these."""
    found, arrays = hashlib.sha256(), traverse_util.flatten_dict(variables, sep="/")
    for name in sorted(arrays):
        found.update(name.encode())
        found.update(np.asarray(arrays[name]).tobytes())
    return found.hexdigest()


def _well_formed(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts. Raises TypeError or KeyError where one is of another kind."""
    kinds = dict.fromkeys(FACTS, str) | dict(config=dict, step=int, labels=dict, orientation=dict, doubts=dict, split=dict, provenance=dict)
    odd = [name for name, kind in kinds.items() if not isinstance(facts[name], kind)]
    if odd or not all(isinstance(facts["split"][part], list) for part in ("train", "val")):
        raise TypeError(f"{', '.join(odd) or 'split'} of another kind")
    if not doubts.are_own(facts["doubts"]):
        raise TypeError("doubts of another kind")
    Cohort(**facts["orientation"])
    return facts


def _fitting(variables: Variables, trained: Trained) -> Variables:
    config = trained.config
    expected = jax.eval_shape(lambda key: init_variables(config.model, key), jax.random.key(0))
    if not same_shapes(expected, variables):
        raise UserError(f"{trained.name} was trained by another version of this package: its weights do not fit the network.")
    return variables


def _from_hub(name: str) -> Path:
    """The weights file of a repository, downloaded unless it was before."""
    packages.require(name, "hub", ("huggingface_hub",), "name a file")
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(name.removeprefix(HUB), allow_patterns=[f"*{SUFFIX}"])
    except Exception as error:  # whatever the hub, its client and the way there have to say
        raise UserError(f"{name} cannot be downloaded ({_reason(error)}): see to the name, OWNER/NAME, and the way there, or name a file.") from error
    files = sorted(Path(folder).glob(f"*{SUFFIX}"))
    if len(files) != 1:
        raise UserError(f"{name} holds {len(files)} files of weights where one is expected: download one, and name it.")
    return files[0]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
