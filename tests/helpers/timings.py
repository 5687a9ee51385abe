"""Made-up times of a system, as a benchmark tells them."""

from ica_unet_jax.benchmarking.measuring import arrival_to_mask

MACHINE = dict(device="cpu", machine="x86_64", cores=2, versions=dict(jax="1.0"), commit="abc")


def timing(name, frame_ms, compute_ms, waits):
    """What a benchmark tells of a system."""
    arrivals = {str(rate): {"p50": arrival_to_mask(compute_ms, frame_ms, rate, waits)} for rate in (22, 30)}
    row = dict(frames_per_second=1e3 / frame_ms, compute_ms={"p50": compute_ms}, arrival_to_mask_ms=arrivals, waits=waits, parameters=2_500_000, gflop=1.5)
    return {"machine": MACHINE, "rows": {name: row}}
