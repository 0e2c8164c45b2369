// Timers, worker threads, child processes, streams through zlib, an HTTP server with a client, files.
const { Worker, isMainThread, parentPort } = require('worker_threads');
const { spawn, fork } = require('child_process');
const http = require('http');
const zlib = require('zlib');
const crypto = require('crypto');
const fs = require('fs');

if (process.argv[2] === 'forked') {
  process.on('message', (n) => process.send({ n, square: n * n }));
} else if (!isMainThread) {
  parentPort.on('message', ({ seed, shared }) => {
    let digest = Buffer.from(String(seed));
    for (let i = 0; i < 3000; i++) digest = crypto.createHash('sha256').update(digest).digest();
    Atomics.add(new Int32Array(shared), 0, 1);
    parentPort.postMessage(digest.toString('hex').slice(0, 12));
  });
} else {
  const rounds = Number(process.argv[2]);
  const once = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));
  const ask = (port, path) => new Promise((resolve, reject) => {
    http.get({ port, path, agent }, (response) => {
      let text = '';
      response.on('data', (chunk) => (text += chunk)).on('end', () => resolve(text));
    }).on('error', reject);
  });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 2 });
  (async () => {
    const server = http.createServer((request, response) => response.end(`you asked for ${request.url} `.repeat(300)));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address();
    const workers = [new Worker(__filename), new Worker(__filename)];
    const child = fork(__filename, ['forked']);
    const shared = new SharedArrayBuffer(4);
    let ticks = 0;
    const interval = setInterval(() => ticks++, 10);
    for (let step = 0; step < rounds; step++) {
      const answers = workers.map((worker) => once(worker, 'message'));
      workers.forEach((worker, i) => worker.postMessage({ seed: step * 2 + i, shared }));
      const square = once(child, 'message');
      child.send(step);
      const pages = await Promise.all([ask(port, `/a${step}`), ask(port, `/b${step}`), ask(port, `/c${step}`)]);
      const packed = await new Promise((resolve) => zlib.gzip(Buffer.alloc(200000, `step ${step}`), (_, data) => resolve(data)));
      const sed = spawn('sed', ['s/x/y/g']);
      sed.stdin.end('xxx\n'.repeat(step + 1));
      let text = '';
      sed.stdout.on('data', (data) => (text += data));
      const code = await once(sed, 'close');
      await fs.promises.appendFile('log', `step ${step}\n`);
      await new Promise((resolve) => setTimeout(resolve, 20));
      console.log(step, await Promise.all(answers), (await square).square, pages.map((page) => page.length), packed.length, text.length, code);
    }
    clearInterval(interval);
    console.log(new Int32Array(shared)[0], ticks > rounds, fs.statSync('log').size);
    agent.destroy();
    child.disconnect();
    console.log('child', await once(child, 'exit'));
    await Promise.all(workers.map((worker) => worker.terminate()));
    server.close();
  })();
}
