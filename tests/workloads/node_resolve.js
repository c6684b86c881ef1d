// A Node program that resolves a name with c-ares (dns.resolve4) and then keeps its event loop busy.
//
// Owns: the question, and the busy loop. Must not know: tracers, causes.
'use strict';
const dns = require('node:dns');
const fs = require('node:fs');

const options = { server: '192.0.2.53', name: 'www.lab.test', 'away-ms': '0' };
for (let i = 2; i + 1 < process.argv.length; i += 2) options[process.argv[i].slice(2)] = process.argv[i + 1];

const resolver = new dns.Resolver({ timeout: 20000, tries: 1 });
resolver.setServers([options.server]);
fs.writeFileSync(options['ready-file'], '');
const waiting = setInterval(() => {
  if (!fs.existsSync(options['go-file'])) return;
  clearInterval(waiting);
  const started = process.hrtime.bigint();
  resolver.resolve4(options.name, (error, addresses) => {
    const elapsedMs = Number(process.hrtime.bigint() - started) / 1e6;
    console.log(JSON.stringify({ answered: error ? 0 : addresses.length, elapsed_ms: elapsedMs }));
  });
  const until = Date.now() + Number(options['away-ms']);
  while (Date.now() < until);
}, 10);
