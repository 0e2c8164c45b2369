"""A notebook that Jupyter's kernel executes: its client and the kernel talk over TCP on the loopback."""
import sys

import nbformat
from nbclient import NotebookClient

steps = int(sys.argv[1])
cells = ["import time, numpy as np\ntotal, rng = np.zeros(100), np.random.default_rng(5)"]
for step in range(steps):
    cells.append(f"for _ in range(20):\n    total += rng.normal(size=100)\n    time.sleep(0.02)\nprint({step}, repr(total.sum()))")
    cells.append(f"_last = !echo from a shell {step}\n_last")
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
client = NotebookClient(notebook, timeout=120, kernel_name="python3")


def show(cell, cell_index, **_):
    for output in cell.outputs:
        print(cell_index, output.get("text") or output.get("data"), flush=True)


client.on_cell_executed = show
client.execute()
print(len(notebook.cells), "cells")
