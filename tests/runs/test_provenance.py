"""Where a run comes from."""

import subprocess

from ica_unet_jax.runs import provenance
from ica_unet_jax.runtime.files import write_text


def test_the_commit_is_that_of_the_code_as_it_was_loaded(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    tracked = tmp_path / "package" / "__init__.py"
    write_text(tracked, "")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.setattr(provenance.ica_unet_jax, "__file__", str(tracked))
    provenance.commit.cache_clear()
    found = provenance.commit()
    tracked.write_text("written by a run")
    again = provenance.commit()
    provenance.commit.cache_clear()
    later = provenance.commit()
    provenance.commit.cache_clear()
    assert len(found) == 12 and again == found and later == f"{found}-dirty"
