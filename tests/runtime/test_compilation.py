import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.compilation_cache import compilation_cache

from ica_unet_jax.runtime import compilation
from ica_unet_jax.runtime.compilation import Compilations


@pytest.fixture
def settings():
    """JAX's settings of the cache, put back afterwards."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_compilations_are_counted_while_the_block_runs():
    f = jax.jit(lambda x: jnp.sin(x) + 1)
    with Compilations() as found:
        x, y = jax.device_put(1.0), jax.device_put(2.0)
        f(x)
        first = found.count
        f(y)
    assert first == found.count == 1
    f(jnp.zeros(3))
    assert found.count == 1


def test_a_folder_that_jax_was_told_is_kept(settings, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation.keep_on_disk()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_by_default_it_is_in_the_users_cache_even_after_a_first_compilation(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    jax.jit(lambda x: x + 17)(1.0)
    compilation.keep_on_disk()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.jit(lambda x: x * 17)(1.0)
    assert list((tmp_path / "ica_unet_jax" / "compiled" / str(len(os.sched_getaffinity(0)))).iterdir())


@compilation.apart(1)
def doubled(x, times):
    return lax.concatenate([x] * times, x.ndim - 1)


def squares(x):
    return jnp.sum(jnp.square(jnp.tanh(doubled(jnp.tanh(x), 3))))


@pytest.mark.parametrize("transform", [lambda f: f, jax.grad, lambda f: jax.vmap(jax.grad(f))])
def test_what_is_compiled_apart_computes_the_same(transform):
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)
    compiled = jax.jit(transform(squares)).lower(x).compile()
    with compilation.plain():
        whole = jax.jit(lambda x: transform(squares)(x)).lower(x).compile()
    assert " call(" in compiled.as_text() and " call(" not in whole.as_text()
    np.testing.assert_allclose(compiled(x), whole(x), rtol=1e-6)


def test_once_is_the_same_value_and_gradient_and_not_fused():
    x = {"a": jnp.linspace(-1, 1, 12), "b": jnp.linspace(0, 2, 12)}
    chain = lambda pass_on: lambda x: jnp.sum(jnp.tanh(pass_on(jax.tree.map(jnp.tanh, x))["a"]) * x["b"])  # noqa: E731
    plain, passed = (jax.jit(jax.grad(chain(f))).lower(x).compile() for f in (lambda x: x, compilation.once))
    assert passed.as_text().count(" call(") >= 2 and " call(" not in plain.as_text()  # there and back
    for a, b in zip(jax.tree.leaves(plain(x)), jax.tree.leaves(passed(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_what_is_compiled_for_one_core_is_not_loaded_where_there_are_two(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = []
    for cores in ({0}, {0, 1}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: cores, raising=False)
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.keep_on_disk()
        folders.append(jax.config.jax_compilation_cache_dir)
    assert folders[0] != folders[1]


@pytest.fixture
def asked_anew():
    compilation.one_window_options.cache_clear()
    yield
    compilation.one_window_options.cache_clear()


def test_the_options_for_one_window_are_known_to_this_version(asked_anew):
    options = compilation.one_window_options()
    assert options
    assert jax.jit(lambda x: 2 * x).lower(3.0).compile(options)(3.0) == 6


def test_a_wrong_option_is_no_missing_one(asked_anew, monkeypatch):
    def refuse(lowered, options=None):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: 'false' is not a valid bool value")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    with pytest.raises(jax.errors.JaxRuntimeError, match="valid bool"):
        compilation.one_window_options()


def test_a_version_without_such_an_option_gets_none(asked_anew, monkeypatch):
    def refuse(lowered, options=None):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: No such compile option")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    assert compilation.one_window_options() == {}
