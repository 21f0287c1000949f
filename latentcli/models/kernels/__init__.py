"""Fuses what the fast networks do between their products, in Triton kernels for NVIDIA GPUs."""
