"""A training loop without any checkpoint code: a small network learns the sine, on numpy alone. EPOCHS: their number."""

import os

import numpy as np

random = np.random.default_rng(1)
x = np.linspace(-np.pi, np.pi, 256)[:, None]
y = np.sin(x)
w1, b1 = random.normal(size=(1, 32)), np.zeros(32)
w2, b2 = random.normal(size=(32, 1)) * 0.1, np.zeros(1)

for epoch in range(1, int(os.environ.get("EPOCHS", 10000)) + 1):
    for batch in np.array_split(random.permutation(len(x)), 64):
        hidden = np.tanh(x[batch] @ w1 + b1)
        error = hidden @ w2 + b2 - y[batch]
        back = error @ w2.T * (1 - hidden**2)
        w2 -= 0.02 * hidden.T @ error
        b2 -= 0.02 * error.sum(0)
        w1 -= 0.02 * x[batch].T @ back
        b1 -= 0.02 * back.sum(0)
    if epoch % 10 == 0:
        loss = float(((np.tanh(x @ w1 + b1) @ w2 + b2 - y) ** 2).mean())
        print(f"epoch {epoch}: loss {loss:.12e}", flush=True)
