"""What every test runs under: two CPU devices, no silent broadcasting, shapes and types checked at every call."""

import os
import shutil
import signal
import subprocess

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the tests' time is the compiler's, which takes half as long to make slower code.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 " + os.environ.get("XLA_FLAGS", "")

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402
from platformdirs import user_cache_dir  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
# What was compiled once is kept.
jax.config.update("jax_compilation_cache_dir", user_cache_dir(os.path.join("ica_unet_jax", "compiled"), appauthor=False))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
pytest_plugins = ["skips"]
install_import_hook("ica_unet_jax", "typecheck.check")  # before the first import of the package


def pytest_collection_modifyitems(items):
    """What starts many processes comes first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name not in ("test_documents.py", "test_parallel.py"))


@pytest.fixture
def signals_heard():
    """SIGINT as Python has it; a shell's background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Four phantom patients of 2 slices, 64 x 64, 4 frames."""
    from ica_unet_jax.data.phantom.beating_heart import write_cohort

    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    write_cohort(folder, patients=4, shape=(2, 64, 64), frames=4)
    return folder


@pytest.fixture(scope="session")
def tiny_run(cohort, tmp_path_factory):
    """The run folder of a smallest network of random values; of `cohort` two patients train and two validate."""
    import tiny

    from ica_unet_jax.config import Config
    from ica_unet_jax.runs.log import Metrics

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = Config.make(**tiny.SMALL, data_dir=str(cohort), workdir=str(folder), steps=2)
    tiny.write_run(config)
    log = Metrics(folder, 0)
    for step in (1, 2):
        log.write(step=step, seconds_per_step=3.0, compiled=step == 1, loss=1 / step)
    log.write(step=2, dice_RV=0.1, dice_MYO=0.2, dice_LV=0.3, dice_mean=0.2)
    return folder


@pytest.fixture(scope="module")
def compiled_once():
    """Trainings in this process that differ in their folder alone share what is compiled."""
    import functools

    import tiny

    from ica_unet_jax.training import loop

    def shared(function):
        cached = functools.cache(function)
        return lambda config: cached(config.replace(workdir="any", init_from="", log_every=1))

    with pytest.MonkeyPatch.context() as patch:
        init = shared(loop.init_state)
        patch.setattr(loop, "make_step", shared(loop.make_step))
        patch.setattr(loop, "segmenter_of", shared(loop.segmenter_of))
        patch.setattr(loop, "init_state", lambda config: tiny.copy(init(config)))
        yield


@pytest.fixture(scope="module")
def make(cohort, tmp_path_factory):
    """make(name, **changes): the configuration of a shortest training in a folder of that name."""
    import tiny

    from ica_unet_jax.config import Config

    folder = tmp_path_factory.mktemp("runs")
    common = tiny.LOOP | dict(data_dir=str(cohort), cache_dir=str(folder / "cache"))
    return lambda name, **changes: Config.make(**common | dict(workdir=str(folder / name)) | changes)


@pytest.fixture(scope="module")
def whole(make, compiled_once):
    """An uninterrupted training: its configuration and its last state."""
    from ica_unet_jax.training import loop

    config = make("whole")
    return config, loop.train(config)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 5 MB of its own; skipped where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=5m", "none", folder], capture_output=True).returncode == 0
    if not made:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)
