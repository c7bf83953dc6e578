"""Settings of the training; those of tracking are in :mod:`nr_tracking.config`, of which these are a section."""

from __future__ import annotations

from nr_tracking.section import Section, setting


class TrainingConfig(Section):
    """How weights are learnt; nothing here matters once they are."""

    seed: int = setting(0, "seed of every draw", ge=0)
    windows_per_step: int = setting(
        1, "windows whose gradients are averaged in one step; processes share them, one each at least", ge=1, le=4096
    )
    gates: tuple[float, float, float] = setting(
        (0.0, 0.0, 0.0),
        "least validation IoU before the paper's fine (coarse IoU), association and deformation phases; 0: none",
    )
    learning_rate: float = setting(2e-3, "peak learning rate of AdamW", gt=0, le=1)
    weight_decay: float = setting(1e-2, "decoupled weight decay", ge=0, le=1)
    betas: tuple[float, float] = setting((0.9, 0.98), "decay of the gradient moments")
    warmup_steps: int = setting(50, "steps over which the learning rate rises", ge=1, le=100_000)
    final_rate: float = setting(0.02, "share of the peak learning rate at the end of the cosine", ge=0, le=1)
    gradient_clip: float = setting(1.0, "largest norm of the gradient", gt=0)
    average: float = setting(0.999, "decay of the running average of the weights, which is what is shipped", ge=0, lt=1)
    bfloat16: bool = setting(True, "run convolutions, on a GPU attention too, in bfloat16 where the hardware has it")
    active_cap: float = setting(
        2.5, "model.active_cap while training: an unlearnt field would refine everything", gt=0, le=64
    )
    points: int = setting(2000, "distance samples around the surface in a frame and step", ge=16, le=100_000)
    hidden_points: int = setting(1000, "distance samples anywhere in space that the camera did not see into", ge=0)
    empty_points: int = setting(400, "distance samples anywhere in space that was seen to be empty", ge=0)
    surface_points: int = setting(400, "samples on the true surface in a frame and step", ge=0, le=100_000)
    clamp_cells: tuple[float, float, float] = setting(
        (2.0, 2.5, 3.0), "distances are compared up to this many cells of R/4, R/2 and R", unit="cell"
    )
    occupancy: float = setting(0.4, "weight of the inside-outside cross entropy beside a distance loss of one", ge=0)
    precision: float = setting(0.5, "weight of distances near the surface beside a distance loss of one", ge=0)
    precision_cells: float = setting(
        1.0, "a sample further off than this is left to the losses over volume", unit="cell", gt=0, le=10
    )
    volume_rise: tuple[float, float] = setting(
        (0.1, 0.3), "shares of a run between which samples come to weigh as much as the volume they stand for"
    )
    ray_distance: float = setting(20.0, "weight of distances along rays, in box sides, beside their occupancy", ge=0)
    ray_sharpness: float = setting(
        125.0, "logit of being inside along rays, per box side of distance", unit="1/box side", gt=0, le=10_000
    )
    student_channels: tuple[int, int, int, int, int] = setting(
        (0, 0, 0, 0, 0), "model.ray_channels of a smaller ray network that learns beside the trained one; 0 for none"
    )
    student_blocks: tuple[int, int, int, int, int] = setting(
        (0, 0, 0, 0, 0), "model.ray_blocks of that network; 0: those of the trained one"
    )
    distillation: float = setting(5.0, "weight of a student's distances along rays against its teacher's", ge=0)
    student_start: str = setting(
        "", "the student goes on from the ray network of these weights; empty: from the teacher's, narrowed"
    )
    freeze_teacher: bool = setting(
        False, "under the rays schedule only the student learns, from the ray network of the starting weights"
    )
    subject_pixels: int = setting(
        240, "images made from clips show the subject at most this long", unit="pixel", ge=32, le=10_000
    )
    window_frames: int = setting(
        5, "frames of the windows made from clips; those of a cache folder have five", ge=1, le=64
    )
    echoes: int = setting(
        1,
        "times that each window is shown, in turns augmented anew and mirrored, before another one is made",
        ge=1,
        le=64,
    )
    freeze_rays: bool = setting(True, "the completion schedule leaves the ray network of its starting weights as it is")
    contrast: float = setting(0.02, "weight of the contrastive loss of the embedding", ge=0)
    cycle: float = setting(
        0.0, "weight of the unsupervised association losses (cycles, self-reconstruction), in squared cells", ge=0
    )
    contrast_points: int = setting(256, "corresponding surface points in a contrastive pair of frames", ge=8, le=8192)
    contrast_radius: float = setting(0.02, "points this close count as partly the same", unit="box side", gt=0, le=1)
    contrast_scale: float = setting(20.0, "scale of cosines in the contrastive softmax", gt=0, le=1000)
    teacher_fade: tuple[float, float] = setting(
        (0.3, 0.6), "shares of a run between which the help of true refinement masks fades out"
    )
    stretch: float = setting(0.12, "largest logarithm of the factors on width, height and depth", ge=0, le=0.5)
    warp: float = setting(0.5, "share of windows in smoothly warped space", ge=0, le=1)
    mirror: float = setting(0.5, "share of mirrored windows", ge=0, le=1)
    on_its_side: float = setting(0.08, "share of windows of a camera that lies on a side or upside down", ge=0, le=1)
    reverse: float = setting(0.5, "share of windows played backwards", ge=0, le=1)
    noise: float = setting(0.5, "share of windows with sensor noise", ge=0, le=1)
    stereo: float = setting(0.35, "share of that noise that is an active stereo camera's", ge=0, le=1)
    dropout: float = setting(0.25, "largest share of observed voxels left out", ge=0, lt=1)
    background: float = setting(0.4, "share of windows with a wall behind the subject", ge=0, le=1)
    occluder: float = setting(0.15, "share of windows with a thing between camera and subject", ge=0, le=1)
    dark: float = setting(0.15, "share of windows with a patch of the subject that returns nothing", ge=0, le=1)
    single_frame_cube: float = setting(0.3, "share of cubes fitted to one frame instead of the window", ge=0, le=1)
    centre_jitter: float = setting(0.02, "largest shift of the cube", unit="box side", ge=0, le=0.5)
    side_jitter: tuple[float, float] = setting((0.92, 1.12), "range of the factor on the side of the cube")
    match: float = setting(0.1, "weight of deformed patch centres against their associations", ge=0)
    rigidity: float = setting(2.0, "weight of the rigidity of deformations", ge=0)
    surface: float = setting(1.0, "weight of deformed vertices against the next surface", ge=0)
    position: float = setting(2.0, "weight of deformed patch centres against their true positions", ge=0)
    checkpoint_minutes: float = setting(3.0, "time between checkpoints", unit="min", gt=0)
    validation_minutes: float = setting(10.0, "time between validations", unit="min", gt=0)
    validation_windows: int = setting(32, "windows in a validation", ge=1, le=10_000)
    workers: int = setting(1, "processes that prepare windows beside the training; 0 for none", ge=0, le=64)
