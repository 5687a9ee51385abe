"""Cohorts rewritten as others lay theirs out: same images, other names, labels by other numbers, frames in other files."""

import csv
import json

import nibabel as nib
import numpy as np

LV_FIRST = np.array([0, 3, 2, 1], np.uint8)  # ours (1 RV, 2 myocardium, 3 LV) as M&Ms and UK Biobank number them
VENDORS = ("Siemens", "Philips")
WHERE = {"mms": ("Training/Labeled", "Training/Labeled", "Validation", "Testing")}  # of the first four patients


def save(path, volumes, cine):
    """An image of frames (t, s, y, x), or of one (s, y, x), with the geometry of a cine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = cine.header.copy()
    header.set_data_dtype(volumes.dtype)
    header.set_data_shape(volumes.T.shape)
    nib.save(nib.Nifti1Image(volumes.T, header.get_best_affine(), header), path)


def truth_of(cine):
    """The ground truth of a whole cine, of zeros but for the labelled frames, as others number the labels."""
    truth = np.zeros(cine.frames.shape, np.uint8)
    for time, labels in cine.labels.items():
        truth[time] = LV_FIRST[labels]
    return truth


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def mms(root, cines):
    """M&Ms; the first patient stands in Unlabeled too, by another name and with a ground truth of zeros."""
    names, rows = {}, []
    for number, cine in enumerate(cines):
        name = names[cine.case.name] = f"A{number}S9V9"
        place = root / WHERE["mms"][number % 4] / name
        save(place / f"{name}_sa.nii.gz", cine.frames, cine)
        save(place / f"{name}_sa_gt.nii.gz", truth_of(cine), cine)
        rows.append(row_of_mms(name, number, cine))
    place, name = root / "Training" / "Unlabeled" / "U0S9V9", "U0S9V9"
    save(place / f"{name}_sa.nii.gz", cines[0].frames, cines[0])
    save(place / f"{name}_sa_gt.nii.gz", np.zeros(cines[0].frames.shape, np.uint8), cines[0])
    rows.append(row_of_mms(name, 0, cines[0]))
    table(root / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv", rows)
    return names


def row_of_mms(name, number, cine):
    ed, es = sorted(cine.labels)
    vendor = VENDORS[number % 2]
    return {"": number, "External code": name, "VendorName": vendor, "Vendor": "AB"[number % 2], "Centre": number % 2 + 1, "ED": ed, "ES": es,
            "Age": 50, "Pathology": cine.case.group or "NOR", "Sex": "F", "Height": 170, "Weight": 70}  # fmt: skip


def mms2(root, cines):
    """M&Ms-2, with a long-axis image for each patient."""
    names, rows = {}, []
    for number, cine in enumerate(cines):
        name = names[cine.case.name] = f"{number + 1:03d}"
        place, (ed, es) = root / "dataset" / name, sorted(cine.labels)
        save(place / f"{name}_SA_CINE.nii.gz", cine.frames, cine)
        for phase, time in (("ED", ed), ("ES", es)):
            save(place / f"{name}_SA_{phase}.nii.gz", cine.frames[time], cine)
            save(place / f"{name}_SA_{phase}_gt.nii.gz", truth_of(cine)[time], cine)
            save(place / f"{name}_LA_{phase}.nii.gz", cine.frames[time, :1], cine)
        vendor = ("SIEMENS", "Philips Medical Systems")[number % 2]
        rows.append({"SUBJECT_CODE": number + 1, "DISEASE": cine.case.group or "NOR", "VENDOR": vendor, "SCANNER": "x", "FIELD": 1.5})
    table(root / "dataset_information.csv", [*rows, dict.fromkeys(rows[0], "")])
    return names


def ukbb(root, cines):
    """UK Biobank after ukbb_cardiac; the RV of the first patient is 4."""
    names = {}
    for number, cine in enumerate(cines):
        name = names[cine.case.name] = f"{1000001 + number}"
        truth = truth_of(cine)
        if not number:
            truth[truth == 3] = 4
        save(root / name / "sa.nii.gz", cine.frames, cine)
        for phase, time in zip(("ED", "ES"), sorted(cine.labels), strict=True):
            save(root / name / f"sa_{phase}.nii.gz", cine.frames[time], cine)
            save(root / name / f"label_sa_{phase}.nii.gz", truth[time], cine)
    return names


def nnunet(root, cines):
    """nnU-Net's raw data of the labelled frames, labels named as in its M&Ms; two folds, the last patient is kept for the test."""
    *train, last = cines
    for ending, group in (("Tr", train), ("Ts", [last])):
        for cine in group:
            for time, labels in cine.labels.items():
                name = f"{cine.case.name}_frame{time + 1:02d}"
                save(root / f"images{ending}" / f"{name}_0000.nii.gz", cine.frame(time), cine)
                save(root / f"labels{ending}" / f"{name}.nii.gz", LV_FIRST[labels], cine)
    names = [[f"{cine.case.name}_frame{time + 1:02d}" for time in cine.labels] for cine in train]
    folds = [{"train": sum(names[:k] + names[k + 1 :], []), "val": names[k]} for k in range(2)]
    (root / "splits_final.json").write_text(json.dumps(folds))
    labels = {"background": 0, "LVBP": 1, "LVM": 2, "RV": 3}
    known = {"channel_names": {"0": "cineMRI"}, "labels": labels, "numTraining": sum(map(len, names)), "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(known))
    return {cine.case.name: cine.case.name for cine in cines}


def truths(root, cines):
    """A plain folder in which the ground truth of a cine is one file of its shape."""
    for cine in cines:
        save(root / f"{cine.case.name}_4d.nii.gz", cine.frames, cine)
        save(root / f"{cine.case.name}_gt.nii.gz", LV_FIRST[truth_of(cine)], cine)
    return {cine.case.name: cine.case.name for cine in cines}


LAYOUTS = {"mms": mms, "mms2": mms2, "ukbb": ukbb, "nnunet": nnunet, "folder": truths}
