"""The folders of a cohort, and the images in one of them by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ica_unet_jax.data import checks
from ica_unet_jax.data.nifti import SUFFIX, stem


def below(root: Path, depth: int) -> Iterator[Path]:
    """The folder and those in it, `depth` levels down, sorted, without hidden ones. Raises OSError where one cannot be listed."""
    yield root
    if depth:
        for path in sorted(root.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield from below(path, depth - 1)


def holds(root: Path, depth: int, *patterns: str) -> bool:
    """Whether a file of one of those names lies in the folder or up to `depth` levels down."""
    return any(any(root.glob("*/" * level + pattern)) for level in range(depth + 1) for pattern in patterns)


class Images:
    """The images of one folder of the cohort `root`, by their names without .nii.gz; none where there is no such folder."""

    def __init__(self, place: Path, root: Path):
        self.place, self._root = place, root
        self._paths: dict[str, list[Path]] = {}
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            suffix = SUFFIX.search(path.name)
            if suffix and not suffix[0].lower().startswith(".hdr") and not path.name.startswith("."):
                self._paths.setdefault(stem(path), []).append(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def take(self, name: str, problems: list[str]) -> Path | None:
        """The image of that name; None where there is none, and where it may not be opened, which is then among the problems."""
        path, *more = self._paths.get(name, [None])
        if path is None:
            return None
        if problem := checks.of_image(path, self._root):
            problems.append(problem)
            return None
        problems += [f"{twin}: {path.name} stands for the same data; remove one of the two." for twin in more]
        return path
