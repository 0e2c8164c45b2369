"""The same in PyTorch, with worker processes that load the data. EPOCHS: their number."""

import os

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(1)
x = torch.linspace(-torch.pi, torch.pi, 1024)[:, None]
data = DataLoader(TensorDataset(x, torch.sin(x)), batch_size=32, shuffle=True, num_workers=2, persistent_workers=True)
model = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(1, int(os.environ.get("EPOCHS", 1000)) + 1):
    total = 0.0
    for inputs, targets in data:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch}: loss {total / len(data):.12e}", flush=True)
