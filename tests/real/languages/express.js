// An Express server and its client in a process of its own.
const { spawn } = require('child_process');
const rounds = Number(process.argv[2]);
if (process.argv[3]) {
  (async () => {
    for (let i = 0; i < rounds; i++) {
      const response = await fetch(`http://127.0.0.1:${process.argv[3]}/items/${i}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ value: 'v'.repeat(i * 100) }) });
      console.log(i, response.status, JSON.stringify(await response.json()));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  })();
} else {
  const express = require('express');
  const app = express();
  const items = new Map();
  app.use(express.json({ limit: '10mb' }));
  app.post('/items/:id', (request, response) => {
    items.set(request.params.id, request.body.value.length);
    response.json({ count: items.size, total: [...items.values()].reduce((a, b) => a + b, 0) });
  });
  const server = app.listen(0, '127.0.0.1', () => {
    const client = spawn(process.execPath, [__filename, rounds, server.address().port], { stdio: 'inherit' });
    client.on('exit', (code) => {
      console.log('client ended with', code, items.size);
      server.close();
      server.closeAllConnections();
    });
  });
}
