"""JAX on the CPU, in one thread of it, as `envs` has it: set before any test's file loads JAX."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("PJRT_NPROC", "1")
