"""What the numbers of a label volume mean."""

NUM_CLASSES = 4  # background, RV cavity, myocardium, LV cavity
STRUCTURES = {"RV": 1, "MYO": 2, "LV": 3}  # right ventricular cavity, myocardium, left ventricular cavity
UNLABELLED = 255  # a voxel without ground truth
