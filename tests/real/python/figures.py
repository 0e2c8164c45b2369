"""A series of figures, written as PNG and as PDF."""
import hashlib
import os
import sys

os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(11)
for step in range(int(sys.argv[1])):
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), dpi=120)
    x = np.linspace(0, 10, 600)
    left.plot(x, np.sin(x + step / 5), label=f"step {step}")
    left.legend()
    left.set_title(r"$\sin(x + \phi)$")
    image = right.imshow(rng.normal(size=(60, 60)).cumsum(axis=0), cmap="viridis")
    figure.colorbar(image)
    for name in (f"figure-{step:04}.png", f"figure-{step:04}.pdf"):
        figure.savefig(name)
        with open(name, "rb") as file:
            print(name, hashlib.sha256(file.read()).hexdigest()[:16], flush=True)
    plt.close(figure)
