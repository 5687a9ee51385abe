"""Every setting of the project: its name, help text, default and allowed values are here and nowhere else.

`launcher.py` turns each field into one command-line flag of the same name, so names are unique
over all parts. A configuration is frozen, hashable and JSON-serialisable.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping

from ica_unet_jax.errors import UserError
from ica_unet_jax.knobs import Part, Value, knob
from ica_unet_jax.models.registry import NETWORKS, Network


@dataclasses.dataclass(frozen=True)
class ModelConfig(Part):
    """The network. `crop` belongs to it: a basis patch is h/16 wide, so the grid is part of the function."""

    model: str = knob("ica_unet", "Which network.", choices=tuple(NETWORKS))
    crop: tuple[int, int, int] = knob((10, 192, 192), "The model's grid d,h,w in voxels: d even; h and w multiples of max(32, 4*2^contracting_blocks), at least 64.")
    contracting_blocks: int = knob(4, "n, contracting blocks per stream (paper: 3 or 4).", low=1, high=6)
    bases: int = knob(32, "m, independent bases (paper: 32).", low=1)
    projection_width: int = knob(4, "u, channels of a basis (paper: 4).", low=1)
    stream_width: int = knob(8, "p, channels of one coefficient stream at its top; doubled once below. With --streams=dense the width of the one U-Net.", low=1)
    convs_per_block: int = knob(1, "3x3 convolutions after each stride-2 convolution of a contracting block.", low=0)
    expanding_convs: int = knob(1, "3x3 convolutions after each upsampling block U_k.", low=0)
    expanding_skips: bool = knob(True, "The expanding path sees the skip A_k before these convolutions, not the concatenation block alone.")
    encoder_width: int = knob(16, "Channels of the ICA-encoder's first layer; 2x and 4x below.", low=1)
    encoder_convs: int = knob(2, "3x3 convolutions of the ICA-encoder's coefficient branch at h/4.", low=0)
    encoder_dilation: bool = knob(True, "Double the dilation from one of these convolutions to the next (1, 2, 4): context.")
    decoder_width: int = knob(32, "Hidden channels of an ICA-decoder's convolution module, at half the output's size.", low=1)
    decoder_convs: int = knob(1, "3x3 convolutions of an ICA-decoder before the one that gives the logits.", low=0)
    streams: str = knob("independent", "Weights of the m coefficient streams: one set each, one for all, or a plain U-Net over m channels (control).", choices=("independent", "shared", "dense"))
    bases_from: str = knob("dictionary_and_frame", "Where the bases X come from; fastica: FastICA of the training frames, which training leaves as they are (needs the extra [ablations]).", choices=("frame", "frame_with_coordinates", "dictionary", "dictionary_and_frame", "fastica"))
    dictionary_cosines: bool = knob(True, "Each basis of the learned dictionary starts with another spatial frequency, not all with the same smooth window.")
    signed_coefficients: bool = knob(True, "The concatenation block T_k ends without an activation, so that mixed coefficients carry a sign, as those of the encoder do.")
    concatenation_skip: bool = knob(True, "The concatenation block T_k sees the skip A_k beside A'_k and the correlations.")
    concatenation_over: str = knob("stream", "The 1x1 convolution of T_k: of each stream by itself, or over all streams.", choices=("stream", "all"))
    upsample_norm: bool = knob(True, "Norm and activation after the transposed convolution of U_k.")
    mixing: str = knob("ica", "What the ICA-decoders see: the coefficients mixed with the bases X; coefficients upsampled by a learned kernel of 2x4x4 voxels, no bases (control); the correlations alone (control).", choices=("ica", "upsampled", "none"))
    decoder_frame: bool = knob(False, "The frame, averaged to an output's size, joined to what its ICA-decoder sees.")
    decoder_size: str = knob("half", "Where the convolutions of an ICA-decoder work: at half the output's size on 2x2 pixels as channels, or at its full size.", choices=("half", "full"))
    neighbours: str = knob("both", "Which other frames the network sees for frame t: t-1 and t+1 (paper), t-1 alone (causal), t-2 and t-1 (causal), none.", choices=("both", "past", "two_past", "none"))
    correlation_radius: int = knob(2, "In-plane displacements of the correlation with a neighbour; 0 is the plain product, -1 no correlation.", low=-1, high=8)
    neighbour_gradients: bool = knob(False, "Train the encoder through the neighbours' coefficients too (slower, and more memory).")
    norm: str = knob("batch", "Normalisation layer: batch norm or group norm.", choices=("batch", "group"))
    masked_statistics: bool = knob(True, "Leave padded voxels out of the statistics of batch and other norms.")
    mixing_scale: bool = knob(True, "Divide a mixed value by the square root of the number of products in it.")
    compute_dtype: str = knob("float32", "Arithmetic of the network; parameters and losses stay float32.", choices=("float32", "bfloat16"))
    remat: bool = knob(False, "Recompute activations in the backward pass to save memory.")
    unet_width: int = knob(16, "Channels of --model=unet2d at full size, doubled at each of its three poolings.", low=1)
    width_multiplier: float = knob(1.0, "Channels of the other rivals, as a multiple of their published or chosen ones.", low=0.01)
    span: int = knob(5, "Frames of a snippet, which --model=msu_net answers at once (paper: 2, 3, 5, 10).", low=2)
    sources: int = knob(3, "Independent sources of a snippet, at most one fewer than its frames (--model=msu_net).", low=1)
    anisotropy: float = knob(6.5, "Distance of slices over the in-plane voxel size, for which --model=unet3d plans its stages.", low=0.1)
    expanding_kernels: str = knob("own", "Kernels of a stage of --model=unet3d's expanding path: those of its own resolution (nnU-Net), or of the one below (MONAI's DynUNet).", choices=("own", "below"))

    def __post_init__(self):
        super().__post_init__()
        if len(self.crop) != 3:
            raise UserError(f"--crop={','.join(map(str, self.crop))} needs three numbers: d,h,w.")
        d, h, w = self.crop
        multiple, smallest = self.network.grid(self.contracting_blocks), self.network.smallest
        if d < 2 or d % 2:
            raise UserError(f"--crop={d},{h},{w}: the depth must be even and at least 2; take {max(2, d + d % 2)}.")
        if self.mixing == "none" and not self.decoder_frame:
            raise UserError("--mixing=none needs --decoder_frame: without the frame the decoders would see the correlations alone.")
        if self.expanding_skips and not self.expanding_convs:
            raise UserError("--expanding_skips needs --expanding_convs of at least 1: give --noexpanding_skips without convolutions.")
        for size in (h, w):
            if size % multiple or size < smallest:
                near = max(math.ceil(smallest / multiple), round(size / multiple)) * multiple
                blocks = f" (with --contracting_blocks={self.contracting_blocks})" if self.network.of_blocks else ""
                raise UserError(
                    f"--crop={d},{h},{w}: height and width must be multiples of {multiple}, at least {smallest}{blocks}; take {near} for {size}."
                )

    def channels(self, published: int) -> int:
        """Channels of a rival's layer, by --width_multiplier."""
        return max(1, round(self.width_multiplier * published))

    @property
    def network(self) -> Network:
        """The row of the registry."""
        return NETWORKS[self.model]

    @property
    def has_bases(self) -> bool:
        """Whether there is anything that is mixed with bases X, and so an ICA loss."""
        return "bases_from" in self.network.reads(self.mixing)

    @property
    def dictionary_alone(self) -> bool:
        """Whether X is a dictionary alone."""
        return self.bases_from in ("dictionary", "fastica")

    @property
    def portable(self) -> bool:
        """Whether ONNX has all that the network computes with: it has no eigenvectors, by which MSU-Net looks for several sources."""
        return self.model != "msu_net" or self.span == 2

    @property
    def takes_stacks(self) -> bool:
        """Whether all before the mixing looks at pairs of slices, so that a stack of any even depth is encoded and transformed at once."""
        return self.model == "ica_unet" and not (self.has_bases and self.bases_from == "frame_with_coordinates")

    @property
    def reach(self) -> int:
        """Frames before and after a labelled one that belong to a training sample."""
        return self.answered - 1 if self.network.snippet else max(1, -min(self.frames, default=0))

    @property
    def answered(self) -> int:
        """Frames that one run of the network answers."""
        return getattr(self, self.network.snippet) if self.network.snippet else 1

    @property
    def waits(self) -> int:
        """Later frames without which a frame is not answered; of a snippet, its first frame."""
        return self.answered - 1 or int(1 in self.frames)

    @property
    def frames(self) -> tuple[int, ...]:
        """Offsets in time of the neighbours whose coefficients are used."""
        if "neighbours" not in self.network.settings or self.correlation_radius < 0:
            return ()
        return {"both": (-1, 1), "past": (-1,), "two_past": (-2, -1), "none": ()}[self.neighbours]


@dataclasses.dataclass(frozen=True)
class LossConfig(Part):
    """L = sum_k alpha_k CE_k + beta (lambda_s L_s + lambda_i L_i + lambda_r L_r), the paper's Eq. 2 and 1."""

    ica_weight: float = knob(0.2, "beta, weight of the ICA loss.", low=0)
    sparsity_weight: float = knob(1.0, "lambda_s, weight of |X|_1.", low=0)
    independence_weight: float = knob(1.0, "lambda_i, weight of the log cosh independence term.", low=0)
    reconstruction_weight: float = knob(1.0, "lambda_r, weight of the reconstruction term.", low=0)
    alpha: float = knob(0.75, "alpha inside the independence term.", low=1e-3)
    ica_reduction: str = knob("mean", "How the ICA terms are reduced: all means, or as literally written (sum, average, sum of squares).", choices=("mean", "sum"))
    standardize_bases: bool = knob(False, "Zero mean and unit variance per basis before the sparsity and independence terms.")
    whiten_bases: bool = knob(False, "Whiten the bases before these two terms: unit variance and no correlation, as in FastICA.")
    independence: str = knob("paper", "The independence term: -alpha log cosh(X / alpha), as printed; or the negentropy that the paper cites: the squared difference between the mean of log cosh over X and over a Gaussian.", choices=("paper", "negentropy"))
    standardize_independence: bool = knob(False, "Zero mean and unit variance per basis before the independence term alone (negentropy always has them).")
    auxiliary_weight: float = knob(0.1, "alpha_k, weight of the cross-entropy of each coarser output; the finest has 1.", low=0)
    dice_weight: float = knob(0.0, "Weight of a soft Dice loss on each output of full size (0: the paper's loss).", low=0)
    published_loss: bool = knob(False, "A rival's own published loss instead of the one that all networks share.")
    distillation_weight: float = knob(0.0, "Weight of the cross-entropy of the finest output against what a teacher makes of the frame, which sees t+1 (0: no teacher).", low=0)


@dataclasses.dataclass(frozen=True)
class DataConfig(Part):
    """Which cases, on which grid, how augmented."""

    data_dir: str = knob("", "Folder of the cohort, in one of the layouts of docs/data.md, or a folder of 4D cines with labelled frames. Several, as A,B, are mixed.")
    reader: str = knob("auto", "Layout of the cohort: auto finds it by the names of files; or one of those in docs/data.md, as acdc, mms, mms2, ukbb, nnunet, dicom, folder.")
    cohort_csv: str = knob("", "Table of the patients (CSV with the columns name, and group, vendor or centre), for stratified folds and tables by vendor.")
    phantom_dir: str = knob("data/phantom", "Where phantom cohorts are written on first use, and looked for.")
    phantom_patients: int = knob(0, "Without --data_dir: train on a phantom cohort of this size (0: no).", low=0)
    phantom_shape: tuple[int, int, int] = knob((8, 96, 96), "Slices, height and width of a phantom frame in voxels.")
    cache_dir: str = knob("", "Preprocessed cases; empty: .cache inside the user's cache folder.")
    workers: int = knob(1, "Processes of this machine that read and prepare the cases (0: one for each core).", low=0)
    cache_gb: float = knob(0.0, "Preprocessed cases take at most so many GB (0: no bound): those used longest ago go, but none that a running training uses.", low=0)
    reorient: bool = knob(False, "Turn all cases to the axis letters (as LPS) that most training cases have, by their affines; for cohorts whose affines are true.")
    spacing: float = knob(1.5, "In-plane voxel size of the model's grid in mm; slices are never resampled.", low=0.1, high=20)
    label_map: str = knob("", "Other label orders, as from:to pairs, for example 1:3,2:2,3:1; empty: the one that the layout has.")
    labelled_frames: str = knob("", "Frames, as 1,12 counted from 1, of a ground truth of the whole cine that count even where they are empty; those with a label always do.")
    skip_bad_cases: bool = knob(False, "Leave out the cases that check_data complains of, list them, and go on.")
    fold: int = knob(0, "Which of the folds is validation.", low=0)
    folds: int = knob(5, "Number of folds, stratified by vendor, centre and group.", low=2)
    split_by: str = knob("folds", "Who validates: one of the folds (nnU-Net's own, if the data bring splits_final.json); published, the parts of the cohort's publishers; none: all but published test patients train, nobody validates; or, as vendor=Philips, all of a vendor, centre, group or cohort.")
    split_seed: int = knob(0, "Seed of the folds.")
    split_file: str = knob("", "JSON file {\"train\": [...], \"val\": [...]} that replaces the folds.")
    balance: str = knob("none", "Show the frames of each cohort (or vendor, centre, group) equally often in training; those of the smaller ones come more than once.", choices=("none", "cohort", "vendor", "centre", "group"))
    train_window: str = knob("centre", "Where the model's window lies in training: at the image centre, or on the labelled heart; a network so trained looks where it finds the heart (--window=follow).", choices=("centre", "heart"))
    rotation: float = knob(30.0, "Augmentation: rotation in the plane, degrees, uniform in +-.", low=0, high=180)
    scaling: float = knob(0.15, "Augmentation: in-plane zoom, uniform in 1+-.", low=0, high=0.9)
    shift: float = knob(6.0, "Augmentation: in-plane shift of the window, voxels, uniform in +-.", low=0)
    elastic: float = knob(2.0, "Augmentation: elastic deformation, standard deviation in voxels.", low=0)
    flip: bool = knob(False, "Augmentation: mirror the image in either axis (the heart has a handedness; off by default).")
    flip_slices: bool = knob(False, "Augmentation: turn the order of the slices round.")
    gamma: float = knob(0.3, "Augmentation: log-gamma, uniform in +-.", low=0, high=2)
    brightness: float = knob(0.2, "Augmentation: offset and log-contrast of the z-scored frame, standard deviation.", low=0)
    noise: float = knob(0.1, "Augmentation: largest standard deviation of the added noise.", low=0)
    slice_shift: float = knob(1.0, "Augmentation: shift of single slices (breathing), voxels, standard deviation.", low=0)
    missing_slice: float = knob(0.0, "Augmentation: probability that one slice of the stack is gone, and the others close up.", low=0, high=1)
    thin_stack: float = knob(0.0, "Augmentation: probability that a run of the stack's slices alone is there, from one to all.", low=0, high=1)
    blur: float = knob(0.0, "Augmentation: coarse voxels, largest share of the mean over 3x3 voxels.", low=0, high=1)
    bias_field: float = knob(0.0, "Augmentation: smooth brightness of receiver coils, standard deviation of its logarithm.", low=0, high=2)
    ghosting: float = knob(0.0, "Augmentation: ghost of a moving chest, largest share of the frame shifted by a half to a quarter of the grid.", low=0, high=1)
    spike: float = knob(0.0, "Augmentation: stripes of a spike in k-space, largest amplitude in standard deviations of the frame.", low=0)
    damage: float = knob(1.0, "Augmentation: share of the samples that each of noise, blur, bias field, ghosts and stripes is done to.", low=0, high=1)
    depth_shift: int = knob(0, "Augmentation: shift of the stack through the grid's depth, slices, uniform in +-; it is cut at the ends.", low=0)
    drop_neighbour: float = knob(0.1, "Probability that a neighbour is replaced by the frame itself.", low=0, high=1)
    cyclic: bool = knob(False, "The cine is one closed beat: its last frame precedes its first.")

    @property
    def any_orientation(self) -> bool:
        """Whether a network so trained has seen hearts turned and mirrored in every way that leaves the slices slices."""
        return self.rotation == 180 and self.flip and self.flip_slices

    @property
    def window(self) -> str:
        """Where a network so trained looks in a larger frame unless it is told otherwise: one of `roi.WINDOWS`."""
        return "follow" if self.train_window == "heart" else "centre"


@dataclasses.dataclass(frozen=True)
class TrainConfig(Part):
    """Optimisation and bookkeeping."""

    workdir: str = knob("runs/default", "Run folder; the same command again resumes.")
    seed: int = knob(0, "Seed of parameters, batches and augmentation.", low=0)
    steps: int = knob(10000, "Optimizer steps.", low=1)
    batch_size: int = knob(4, "Labelled frames a step, on all devices together.", low=1)
    unlabelled: int = knob(0, "How many of these have no ground truth; there the teacher's answer is the only target.", low=0)
    devices: int = knob(0, "Devices of each process that share the batch (0: as many as it can be divided over).", low=0)
    learning_rate: float = knob(2e-3, "Largest learning rate.", low=0)
    optimizer: str = knob("adamw", "Optimizer.", choices=("adamw", "adam", "sgd"))
    momentum: float = knob(0.9, "Nesterov momentum of --optimizer=sgd.", low=0, high=0.9999)
    weight_decay: float = knob(1e-4, "Decoupled weight decay of kernels (adamw).", low=0)
    decay_everything: bool = knob(False, "Decay also scales and offsets of norms, biases, the dictionary X_0 and its frame's scale.")
    schedule: str = knob("cosine", "Learning rate after the warm-up; cosine and exponential end at a hundredth.", choices=("cosine", "constant", "polynomial", "exponential"))
    warmup_steps: int = knob(100, "Steps of linear warm-up.", low=0)
    clip_norm: float = knob(1.0, "Largest global gradient norm (0: no clipping).", low=0)
    ema_decay: float = knob(0.99, "Decay of the averaged parameters that are evaluated and kept (0: none).", low=0, high=0.99999)
    recalibration: int = knob(0, "Batches by which, after the last step, batch statistics are made anew for the averaged parameters (0: none).", low=0)
    separate_ica_steps: int = knob(0, "The first steps, in which the ICA-encoder alone learns, from L_ICA alone (Eq. 1); after them it is frozen, and the others learn without L_ICA (0: all learn together, as in the paper).", low=0)
    evaluate_every: int = knob(500, "Steps between validations and checkpoints.", low=1)
    log_every: int = knob(50, "Steps between lines of metrics.jsonl.", low=1)
    chance_validations: int = knob(3, "Stop as diverged after so many validations in a row, past the warm-up, with a cross-entropy above ln 4, which is chance (0: never).", low=0)
    tensorboard: bool = knob(False, "Write the figures of metrics.jsonl as TensorBoard events too (extra `tensorboard`).")
    final_evaluation: bool = knob(True, "End with the evaluation of the validation patients.")
    init_from: str = knob("", "Run folder, or weights, whose parameters are the start (fine-tuning).")
    teacher: str = knob("", "Run folder of the teacher; empty: with --distillation_weight one with --neighbours=both is trained first, in WORKDIR/teacher.")


# What earlier versions did where they had no setting for it, and a later one has another default.
BEFORE: dict[str, Value] = dict(masked_statistics=False, expanding_kernels="below", decay_everything=True, published_loss=True)


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole experiment: `Config.make(bases=16, seed=3)`, `config.replace(steps=10)`, `a.diff(b)`."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self):
        if self.data.cyclic and self.model.neighbours in ("past", "two_past"):
            raise UserError(f"--cyclic with --neighbours={self.model.neighbours}: the wrap would show the first frame its future; drop one of the two.")
        if self.loss.standardize_bases and self.loss.whiten_bases:
            raise UserError("--standardize_bases with --whiten_bases: whitened bases are standardized already; drop one of the two.")
        if self.loss.distillation_weight and self.model.answered > 1:
            raise UserError(f"--distillation_weight with --model={self.model.model}: a student answers single frames; drop one of the two.")
        if self.train.separate_ica_steps and not (self.model.has_bases and self.loss.ica_weight):
            raise UserError(f"--separate_ica_steps={self.train.separate_ica_steps} needs bases and their loss: take a network with bases, and --ica_weight above 0.")
        if self.train.separate_ica_steps >= self.train.steps:
            raise UserError(f"--separate_ica_steps={self.train.separate_ica_steps} leaves none of --steps={self.train.steps} for the rest of the network: take fewer.")
        if self.train.unlabelled and not self.loss.distillation_weight:
            raise UserError(f"--unlabelled={self.train.unlabelled} needs a teacher: give --distillation_weight=1, or leave it out.")
        if self.train.unlabelled >= self.train.batch_size:
            raise UserError(f"--unlabelled={self.train.unlabelled} leaves no labelled frame in --batch_size={self.train.batch_size}: take fewer.")
        if self.data.fold >= self.data.folds:
            raise UserError(f"--fold={self.data.fold} does not exist: folds are 0 to {self.data.folds - 1} (--folds={self.data.folds}).")

    def flat(self) -> dict[str, Value]:
        """{field name: value} over all parts."""
        return {f.name: getattr(getattr(self, part), f.name) for part, f in fields()}

    def replace(self, **changes: Value) -> Config:
        """A copy with some knobs changed, wherever they live; unknown names raise `UserError`."""
        parts: dict[str, dict[str, Value]] = {}
        home = {f.name: part for part, f in fields()}
        for name, value in changes.items():
            if name not in home:
                raise UserError(f"{name} is no setting of this version: remove it, or see --help for the names.")
            parts.setdefault(home[name], {})[name] = tuple(value) if isinstance(value, list) else value
        return dataclasses.replace(self, **{p: dataclasses.replace(getattr(self, p), **c) for p, c in parts.items()})

    @classmethod
    def make(cls, **changes: Value) -> Config:
        """The defaults with some knobs changed."""
        return cls().replace(**changes)

    def diff(self, other: Config) -> dict[str, Value]:
        """The knobs in which `self` differs from `other`, with `self`'s values."""
        theirs = other.flat()
        return {k: v for k, v in self.flat().items() if v != theirs[k]}

    def to_json(self) -> str:
        return json.dumps(self.flat(), indent=2) + "\n"

    @classmethod
    def recorded(cls, values: dict[str, Value]) -> Config:
        """The configuration that a run was recorded with: a setting that its version did not have is as it was then."""
        return cls.make(**{**BEFORE, **values})

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Reads what `to_json` wrote, also in an earlier version."""
        return cls.recorded(json.loads(text))


def fields() -> list[tuple[str, dataclasses.Field]]:
    """(part, field) of every knob, in order; the names are unique."""
    parts = {"model": ModelConfig, "loss": LossConfig, "data": DataConfig, "train": TrainConfig}
    return [(part, field) for part, cls in parts.items() for field in dataclasses.fields(cls)]


def unread(values: Mapping[str, Value]) -> set[str]:
    """The settings of network and loss on which nothing depends with the network that `values` name, a whole `Config.flat()`."""
    reads = NETWORKS[values["model"]].reads(values["mixing"])
    return {field.name for part, field in fields() if part in ("model", "loss") and field.name not in reads}
