"""Products of matrices of whole numbers, with the threads of the BLAS library, and checksums of them."""
import hashlib
import sys

import numpy as np

rng = np.random.default_rng(7)
a = rng.integers(-4, 5, (700, 700)).astype(np.float64)
total = np.eye(700)
for step in range(int(sys.argv[1])):
    for _ in range(4):
        # Whole numbers below 2**53: exact in any order, so that the threads cannot make a difference.
        total = np.remainder(total @ a, 8191.0)
        spectrum = np.fft.rfft(total[step % 700])
    noise = rng.normal(size=100_000).sum()
    print(step, hashlib.sha256(total.tobytes()).hexdigest()[:16], f"{noise:.12g}", f"{abs(spectrum).sum():.9g}", flush=True)
