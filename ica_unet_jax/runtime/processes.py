"""Several devices and several processes: the batch is divided over them, all else is the same on each.

All processes run the same command and see the same files. Each validates for itself, so that all come to the same
decisions; the first alone writes.
"""

from __future__ import annotations

import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ica_unet_jax.config import TrainConfig
from ica_unet_jax.errors import UserError

Tree = Any


def connect(coordinator: str = "", processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the processes of a training; before anything is computed.

    The tasks of a SLURM step (`srun`) find each other, a GPU for each; elsewhere all three are told. Does nothing for
    a process that is alone.

    Args:
      coordinator: HOST:PORT on which the first process listens.
      processes: how many there are; 1 keeps the tasks of a SLURM step apart.
      process_id: which of them this is, counted from 0.

    Raises:
      UserError: some of the three are missing, one is no HOST:PORT, or the number is none of theirs.
    """
    told = bool(coordinator), processes is not None, process_id is not None
    if processes == 1 and not coordinator and not process_id:
        return
    if any(told) and not all(told):
        raise UserError("--coordinator, --processes and --process_id belong together: give all three to each process, or none.")
    if all(told) and not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"--coordinator={coordinator} is no HOST:PORT: write for example node1:12345.")
    if all(told) and not 0 <= process_id < processes:
        raise UserError(f"--process_id={process_id} does not exist: the ids of --processes={processes} are 0 to {processes - 1}.")
    if not all(told) and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM, which is ours: `interruption`
    if all(told):
        jax.distributed.initialize(coordinator, processes, process_id, cluster_detection_method="deactivate")
    else:
        jax.distributed.initialize(cluster_detection_method="slurm")


def disconnect() -> None:
    """Waits for the other processes and leaves them; what follows is each one's own. Does nothing for one alone."""
    jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this process writes."""
    return jax.process_index() == 0


def is_alone() -> bool:
    return jax.process_count() == 1


class Devices:
    """One mesh of the devices of all processes, `config.devices` of each (0: as many as the batch can be divided over).

    Raises:
      UserError: a process has fewer, or the batch cannot be divided over them.
    """

    def __init__(self, config: TrainConfig):
        there, batch, processes = jax.local_device_count(), config.batch_size, jax.process_count()
        count = config.devices or max((n for n in range(1, there + 1) if batch % (n * processes) == 0), default=1)
        if count > there:
            raise UserError(f"--devices={count}, but there are {there}: ask for fewer, or leave it to --devices=0.")
        self.idle = there - count if config.devices == 0 else 0  # of this process, as the batch does not go round
        chosen = [device for process in range(jax.process_count()) for device in jax.devices() if device.process_index == process]
        chosen = np.reshape(chosen, (processes, -1))[:, :count].ravel()
        if batch % len(chosen):
            raise UserError(
                f"--batch_size={batch} cannot be divided over {len(chosen)} devices: take a multiple of {len(chosen)}, or fewer "
                "of them by --devices."
            )
        mesh = Mesh(chosen, ("batch",), axis_types=(AxisType.Auto,))  # jax.make_mesh refuses GPUs of several machines
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.divided = NamedSharding(mesh, PartitionSpec("batch"))
        owners = np.repeat([device.process_index for device in chosen], batch // len(chosen))
        self.rows = np.flatnonzero(owners == jax.process_index()).tolist()  # of a batch that this process reads

    def replicate(self, tree: Tree) -> Tree:
        """The same arrays on each device."""
        return jax.make_array_from_process_local_data(self.everywhere, tree)

    def divide(self, batch: Tree) -> Tree:
        """A batch over all devices, of which each process gives its `rows`."""
        return jax.make_array_from_process_local_data(self.divided, batch)


def own(tree: Tree) -> Tree:
    """Replicated arrays as those of this process' first device, which computes with them alone."""
    return jax.tree.map(lambda array: array.addressable_data(0), tree)


def from_first(tree: Tree) -> Tree:
    """The arrays of the first process, bit by bit; those of the others have their shapes and types."""
    if is_alone():
        return tree
    tree = jax.device_get(tree)
    # As bytes: the sum by which they travel would make -0 a 0.
    told = multihost_utils.broadcast_one_to_all(jax.tree.map(lambda x: np.frombuffer(x.tobytes(), np.uint8), tree))
    return jax.tree.map(lambda x, like: np.frombuffer(x.tobytes(), like.dtype).reshape(like.shape), told, tree)


def any_signal(number: int | None) -> int | None:
    """A signal that one of the processes has received, the same for all; each of them must ask."""
    if is_alone():
        return number
    return int(multihost_utils.process_allgather(np.int32(number or 0)).max()) or None
