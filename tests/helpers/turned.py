"""Cohorts whose images are turned in their files, the affines along."""

import shutil

import nibabel as nib
import numpy as np


def turned_file(path, codes):
    """Rewrites an image so that its axes have other letters, the affine along and true."""
    image = nib.load(path)
    zooms, array = np.array(image.header.get_zooms()), np.asarray(image.dataobj)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.diag([*zooms[:3], 1.0])  # LPS
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(codes))
    moved = affine @ nib.orientations.inv_ornt_aff(turn, array.shape[:3])
    new = nib.Nifti1Image(nib.apply_orientation(array, turn), moved)
    new.header.set_zooms((*nib.affines.voxel_sizes(moved), *zooms[3:]))
    nib.save(new, path)


def turned_cohort(source, target, codes):
    """A copy of a cohort, whose patients have these letters in turn."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for folder, letters in zip(sorted(path for path in target.iterdir() if path.is_dir()), codes, strict=False):
        for path in folder.glob("*.nii.gz"):
            turned_file(path, letters)
    return target
