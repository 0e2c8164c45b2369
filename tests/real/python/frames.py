"""Differential equations, optimisation, sparse systems and tables: scipy and pandas."""
import sys

import numpy as np
import pandas as pd
from scipy import integrate, optimize, sparse, stats
from scipy.sparse.linalg import spsolve

rng = np.random.default_rng(3)
table = pd.DataFrame({"step": pd.Series(dtype=int), "key": pd.Series(dtype=str), "value": pd.Series(dtype=float)})
for step in range(int(sys.argv[1])):
    lorenz = lambda t, s: [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]]
    path = integrate.solve_ivp(lorenz, (0, 4), [1, 1, 1 + step / 100], rtol=1e-7)
    best = optimize.minimize(optimize.rosen, rng.uniform(-2, 2, 6), method="BFGS")
    n = 3000
    matrix = sparse.diags([-1, 2.1 + step / 1000, -1], [-1, 0, 1], (n, n), format="csc")
    solved = spsolve(matrix, np.ones(n))
    values = rng.gamma(2, size=2000)
    new = pd.DataFrame({"step": step, "key": rng.choice(list("abcdef"), 2000), "value": values})
    table = pd.concat([table, new], ignore_index=True).tail(20_000)
    means = table.groupby("key")["value"].agg(["mean", "median", "count"])
    fit = stats.gamma.fit(values[:200], floc=0)
    print(step, path.y[:, -1].round(6).tolist(), round(best.fun, 9), repr(solved.sum()), repr(fit[0]))
    print(means.round(9).to_csv(), flush=True)
table.to_csv("table.csv")
table.pivot_table("value", "step", "key").round(12).to_json("pivot.json")
